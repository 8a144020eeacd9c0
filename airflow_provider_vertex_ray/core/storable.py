"""The gate for everything that leaves to Airflow: a value that its channels and its database can hold.

Texts, numbers and structures from a cluster or a service go into trigger events, XCom, errors and logs. An event that
Airflow cannot encode or store ends the whole triggerer process, again after each restart, and a result that it cannot
store fails a task whose job has succeeded. What can be replaced is replaced; what cannot raises ``NotStorableError``,
which fails one task alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from airflow_provider_vertex_ray.errors import NotStorableError, storable_text

MAX_DEPTH = 100
"""Maximum number of lists and dicts inside each other; Airflow's and Python's own encoders recurse."""

MAX_EVENT_BYTES = 512 << 10
"""Maximum size of a trigger's event in bytes of JSON. It is stored in one database column."""

MAX_RETURNED_BYTES = 64 << 20
"""Maximum size of a task's return value in bytes of JSON; for lists, such as all jobs of a cluster."""

SMALLEST_WHOLE = -(2**63)
LARGEST_WHOLE = 2**64 - 1
"""Bounds of whole numbers, those of MessagePack, which Airflow's processes speak to each other."""

RESERVED_KEYS = frozenset(
    {"__classname__", "__id__", "__version__", "__data__", "__type", "__var", "__source", "__airflow_type"}
)
"""Keys with a meaning to Airflow's serialisation, which refuses them or makes objects from them."""

MAX_PATH = 200
"""Maximum number of characters of a path in a message."""


def storable(
    value: Any,
    name: str,
    *,
    max_bytes: int = MAX_RETURNED_BYTES,
    notify: Callable[[str], None] | None = None,
) -> Any:
    """Return a copy of a value that Airflow can encode and store, whatever was in it.

    NUL characters and lone surrogates become U+FFFD, floats that are not finite become None, and reserved keys lose an
    underscore. Objects of other types than JSON's are returned as they are: they do not come from outside.

    :param value: what JSON can express, lists and dicts in memory included
    :param name: name of the value in messages, such as ``result``
    :param max_bytes: maximum size of the copy in bytes of JSON, about
    :param notify: receives a sentence for each change that alters a number or a key
    :raises NotStorableError: a whole number is out of range, or the value is too deep or too large
    """
    return _Gate(max_bytes, notify or (lambda note: None)).passed(value, name, 0)


def storable_details(details: dict[str, Any]) -> dict[str, Any]:
    """Return the details of an error, with a description in place of each that cannot be stored.

    They accompany the error, and must not hide it.
    """
    found: dict[str, Any] = {}
    for key, item in details.items():
        try:
            found.update(storable({key: item}, "details", max_bytes=MAX_EVENT_BYTES))
        except NotStorableError as error:
            found.update(storable({key: f"(left out: {error.message})"}, "details"))
    return found


def parse_json(text: str, name: str) -> Any:
    """Parse JSON from a cluster; the result still has to pass ``storable``.

    :raises ValueError: the text is not JSON
    :raises NotStorableError: it is JSON, but too deep, or has a number that Python refuses to read
    """
    try:
        return json.loads(text, parse_int=lambda digits: _whole(digits, name))
    except RecursionError:
        raise too_deep(name) from None


def too_deep(name: str) -> NotStorableError:
    """Return the error of a value with too many levels."""
    return NotStorableError(
        f"{name} has more than {MAX_DEPTH} levels of lists and dicts, which Airflow cannot store.", {"path": name}
    )


def _whole(digits: str, name: str) -> int:
    # int() refuses more than 4,300 digits with an error that looks like one of JSON's syntax.
    if len(digits) > 25:
        raise _too_big(name, f"{digits[:25]}…")
    return int(digits)


def _too_big(path: str, shown: str) -> NotStorableError:
    return NotStorableError(
        f"{path} is the whole number {shown}, which does not fit into 64 bits, so Airflow cannot store it. "
        "Return it as a string.",
        {"path": path},
    )


class _Gate:
    def __init__(self, max_bytes: int, notify: Callable[[str], None]) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._notify = notify

    def passed(self, value: Any, path: str, depth: int) -> Any:
        if value is None or value is True or value is False:
            return self._spent(value, 5, path)
        if isinstance(value, str):
            # Also makes a plain string of a string's subclass, such as an Enum's member.
            text = storable_text(str.__str__(value))
            return self._spent(text, len(text.encode()) + 2, path)
        if isinstance(value, int):
            number = int(value)
            if not SMALLEST_WHOLE <= number <= LARGEST_WHOLE:
                # str() refuses numbers of more than 4,300 digits.
                shown = str(number) if number.bit_length() < 128 else f"of {number.bit_length()} bits"
                raise _too_big(path, shown)
            return self._spent(number, len(str(number)) + 1, path)
        if isinstance(value, float):
            if math.isfinite(value):
                return self._spent(float(value), len(repr(float(value))) + 1, path)
            self._notify(f"{path} is {float(value)}, which Airflow cannot store; it is None instead.")
            return self._spent(None, 4, path)
        if isinstance(value, (dict, list, tuple)):
            if depth >= MAX_DEPTH:
                raise too_deep(_short(path))
            self._spent(None, 2, path)
            if isinstance(value, dict):
                return {
                    self._key(key, path): self.passed(item, _short(f"{path}[{key!r}]"), depth + 1)
                    for key, item in value.items()
                }
            items = [self.passed(item, f"{path}[{place}]", depth + 1) for place, item in enumerate(value)]
            return items if isinstance(value, list) else tuple(items)
        return value

    def _key(self, key: Any, path: str) -> Any:
        if not isinstance(key, str):
            return key
        text = storable_text(str.__str__(key))
        if text in RESERVED_KEYS:
            self._notify(f"{path} has the key {text!r}, which is reserved by Airflow; it is {text[1:]!r} instead.")
            text = text[1:]
        return self._spent(text, len(text.encode()) + 4, path)

    def _spent(self, value: Any, size: int, path: str) -> Any:
        self._left -= size
        if self._left < 0:
            name = path.partition("[")[0]
            raise NotStorableError(
                f"{name} has more than {self._max_bytes:,} bytes as JSON, the most that Airflow is given. "
                "Write it to a file, and return the file's path.",
                {"path": name},
            )
        return value


def _short(path: str) -> str:
    return path if len(path) <= MAX_PATH else f"{path[:MAX_PATH]}…"
