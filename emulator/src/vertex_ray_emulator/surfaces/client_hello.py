"""Read a TLS ClientHello to find the protocols that the client offers."""

from __future__ import annotations

ALPN_EXTENSION = 16
HANDSHAKE_RECORD = 22
CLIENT_HELLO = 1
RECORD_HEADER = 5


class _Bytes:
    """Reader of numbers and length-prefixed fields (RFC 8446, section 3.4)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise ValueError("too short")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def field(self, size: int) -> _Bytes:
        return _Bytes(self.take(self.number(size)))

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def rest(self) -> bytes:
        return self._data[self._at :]


def offered_protocols(record: bytes) -> list[str]:
    """Return the protocols that a client offers by ALPN (RFC 7301), such as ``h2``.

    :param record: the connection's first TLS record, with its header.
    :return: empty if the client offers none or the record is not a ClientHello.
    """
    try:
        data = _Bytes(record)
        if data.number(1) != HANDSHAKE_RECORD:
            return []
        data.take(4)  # version and length of the record
        if data.number(1) != CLIENT_HELLO:
            return []
        hello = data.field(3)
        hello.take(2 + 32)  # version, random
        hello.field(1)  # session
        hello.field(2)  # cipher suites
        hello.field(1)  # compression
        extensions = hello.field(2)
        while extensions:
            kind, body = extensions.number(2), extensions.field(2)
            if kind == ALPN_EXTENSION:
                names = body.field(2)
                offered = []
                while names:
                    offered.append(names.field(1).rest().decode("latin-1"))
                return offered
    except ValueError:
        pass
    return []
