"""Who may use the emulator: programs of the same user on this machine; no web page, and no other user.

A browser sends requests of any web page to 127.0.0.1, and by DNS rebinding a page can make itself same-origin with the
emulator. Such requests carry a foreign ``Host`` or ``Origin``, and browsers do not let pages change these headers.
Other users of the machine are told apart by the owner of the connection's other end, which the kernel knows.

Every HTTP surface applies :func:`guard`, those of Ray's own processes and of the companions included. These load this
file by its path, in environments without this package: it must import nothing but the standard library at the top.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

OTHER_USERS_VARIABLE = "VERTEX_RAY_EMULATOR_OTHER_USERS"
"""Environment variable that admits other users of the machine if it is ``1``; set by ``start --allow-other-users``."""
LOCAL_NAMES = ("127.0.0.1", "localhost")
GOOGLE_SUFFIXES = (".googleapis.com", ".aiplatform-training.googleusercontent.com")
"""Suffixes of Google's host names, under which the unmodified SDK reaches the emulator over TLS."""
_HOST = re.compile(r"([a-z0-9.-]+)(?::[0-9]{1,5})?")
_LINKED = re.compile(r"/|/emulator/dashboards/[^/]+/?")
"""Paths to which other pages link: Airflow's links lead to a dashboard's address, and that to the page of Ray's own."""
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_MAPPED = "0000000000000000FFFF0000"
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_checked: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def web_refusal(
    hosts: Sequence[str],
    origins: Sequence[str] = (),
    *,
    secure: bool = False,
    fetch_site: str = "",
    navigation: bool = False,
) -> str | None:
    """Return why a request may come from a web page; None if it cannot.

    :param hosts: values of the header ``Host``.
    :param origins: values of the header ``Origin``.
    :param secure: whether the connection is TLS, with which Google's host names are served, too.
    :param fetch_site: value of the header ``Sec-Fetch-Site``, which browsers send.
    :param navigation: whether a person follows a link: a GET of a document for a whole tab.
    """
    if len(hosts) != 1:
        return f"a request needs exactly one Host header, not {len(hosts)}"
    host = hosts[0].strip().lower()
    match = _HOST.fullmatch(host)
    name = match.group(1) if match else ""
    if name not in LOCAL_NAMES and not (secure and name.endswith(GOOGLE_SUFFIXES)):
        return f"it serves 127.0.0.1 and localhost, not the host {hosts[0]!r}"
    own = f"{'https' if secure else 'http'}://{host}"
    if any(origin.strip().lower() != own for origin in origins):
        return f"it does not serve web pages of the origin {', '.join(origins)!r}"
    if fetch_site.strip().lower() not in ("", "none", "same-origin") and not navigation:
        return f"it does not serve requests of other web pages (Sec-Fetch-Site: {fetch_site})"
    return None


def user_refusal(peer: Any, own: Any) -> str | None:
    """Return why the other end of a connection may belong to another user; None if it does not, or no one can tell.

    :param peer: address of the other end, as :meth:`socket.socket.getpeername` returns it.
    :param own: address of this end.
    """
    if os.environ.get(OTHER_USERS_VARIABLE) == "1" or not Path(_TABLES[0]).exists():
        return None
    if not (isinstance(peer, tuple) and isinstance(own, tuple)):
        return None  # a unix socket, which file permissions protect
    owner = _owner(peer, own)
    if owner in (os.getuid(), 0):
        return None
    whose = "an unknown user" if owner is None else f"the user with id {owner}"
    return (
        f"it belongs to the user with id {os.getuid()}, and the request came from {whose}. "
        "Start it with --allow-other-users to share it"
    )


def _owner(peer: tuple[Any, ...], own: tuple[Any, ...]) -> int | None:
    """Return the user id that owns the other end of a connection on this machine; None if there is no such socket."""
    try:
        ends = [f"{_hexadecimal(address[0])}:{address[1]:04X}" for address in (peer, own)]
    except OSError:
        return None
    found = _owner_by_netlink(peer, own)
    if found is not None:
        return found[0]
    plain = " {} {} ".format(*ends).encode()
    mapped = " {} {} ".format(*(_MAPPED + end for end in ends)).encode()
    for table in _TABLES:
        try:
            content = Path(table).read_bytes()
        except OSError:
            continue
        for needle in (plain, mapped):
            at = content.find(needle)
            if at >= 0:
                # After the two addresses: state, queues, timer, retransmits, user id, timeout, inode.
                fields = content[at + len(needle) : at + len(needle) + 200].split()
                # The kernel reports a socket that its program has closed with user id 0 and inode 0.
                return int(fields[4]) if fields[6] != b"0" else None
    return None


def _owner_by_netlink(peer: tuple[Any, ...], own: tuple[Any, ...]) -> tuple[int | None] | None:
    """Ask the kernel for the one socket, because its tables take milliseconds where many sockets have been used.

    :return: the user id that owns the other end, None in its place for a socket that its program has closed; None if
        the kernel does not say, as in some sandboxes.
    """
    addresses = [socket.inet_aton(address[0].rpartition(":")[2]) for address in (peer, own)]
    body = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
    body += struct.pack("!HH16s16s", peer[1], own[1], *addresses)
    # Any interface, and no cookie.
    body += struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    header = struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            kernel.sendto(header + body, (0, 0))
            # The answer is there when the request has returned.
            answer = kernel.recv(4096, socket.MSG_DONTWAIT)
    except (AttributeError, OSError):
        return None
    if len(answer) < 88 or struct.unpack_from("=H", answer, 4) != (_SOCK_DIAG_BY_FAMILY,):
        return None
    peer_port, own_port, *ends = struct.unpack_from("!HH16s16s", answer, 20)
    # The kernel also answers with a listening socket on the port; an IPv6 socket has the mapped addresses.
    plain = [address.ljust(16, b"\0") for address in addresses]
    mapped = [b"\0" * 10 + b"\xff\xff" + address for address in addresses]
    if (peer_port, own_port) != (peer[1], own[1]) or ends not in (plain, mapped):
        return None
    user, inode = struct.unpack_from("=II", answer, 80)
    return (user if inode else None,)


def _hexadecimal(address: str) -> str:
    """Return an IPv4 address as the kernel writes it: the number in the machine's byte order."""
    (number,) = struct.unpack("=I", socket.inet_aton(address.rpartition(":")[2]))
    return f"{number:08X}"


def guard(*, secure: bool = False) -> Any:
    """Return an aiohttp middleware that answers 403 to web pages and to other users.

    :param secure: whether the server speaks TLS.
    """
    from aiohttp import web

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        headers = request.headers
        navigation = (
            request.method == "GET"
            and _LINKED.fullmatch(request.path) is not None
            and headers.get("Sec-Fetch-Mode") == "navigate"
            and headers.get("Sec-Fetch-Dest") == "document"
        )
        refusal = web_refusal(
            headers.getall("Host", []),
            headers.getall("Origin", []),
            secure=secure,
            fetch_site=headers.get("Sec-Fetch-Site", ""),
            navigation=navigation,
        )
        refusal = refusal or _of_connection(request.transport)
        if refusal is None:
            return await handler(request)
        text = f"The Vertex Ray emulator refused this request: {refusal}."
        return web.json_response(
            {"error": {"code": 403, "message": text, "status": "PERMISSION_DENIED"}},
            status=403,
            # The rest of a refused upload is not read.
            headers={"Connection": "close"},
        )

    return check


def _of_connection(transport: Any) -> str | None:
    """Return why a connection is refused; each is looked up once, because the owner of a socket does not change."""
    if transport is None or transport in _checked:
        return None
    refusal = user_refusal(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
    if refusal is None:
        _checked[transport] = True
    return refusal
