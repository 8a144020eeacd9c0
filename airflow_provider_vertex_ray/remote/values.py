"""Values on their way between Airflow and the cluster: as JSON, and with the types that they have in Python.

What JSON has is sent as it is. Other types of the standard library are sent as a dict with the key ``TYPE_KEY``, so
that a tuple arrives as a tuple. Everything else is rejected: nothing changes its type silently. It is part of the
program that runs on the cluster, so it needs only the standard library, and no pickle is ever read.
"""

from __future__ import annotations

import base64
import datetime
import math
import os
import zoneinfo
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any

__all__ = ["NotPlainError", "decode", "encode"]

TYPE_KEY = "__vertex_ray_type__"
"""Key of the dict that stands for a value of another type; the value itself is under ``value``."""

DEEPEST = 100
"""Maximum nesting depth of lists and dicts."""

LONGEST_WHOLE_NUMBER = 10_000
"""Maximum number of bits of an integer. Python itself rejects numbers with more than 4300 digits."""

ONLY_ARGUMENTS = (bytes, bytearray, complex, range, deque, OrderedDict, Counter, datetime.time)
"""Types that Airflow cannot store as an XCom, so that they can be arguments and no results."""

Later = Callable[[Any], bool]


class NotPlainError(ValueError):
    """A value that cannot be sent.

    :param path: path of the value, such as ``rows[3]['when']``.
    :param value: the value.
    :param rule: what to use instead, as a sentence.
    """

    def __init__(self, path: str, value: object, rule: str) -> None:
        super().__init__(path, rule)
        self.path = path
        self.kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.path} ({self.kind}) cannot be sent between Airflow and the cluster. {self.rule}"


def encode(value: Any, path: str, later: Later | None = None, *, exact: bool = False, result: bool = False) -> Any:
    """Return the JSON from which ``decode`` makes an equal value of the same type.

    Enumerations that are strings or numbers become their values. Unless ``exact``, so do NumPy scalars; pandas' and
    pendulum's times become ``datetime``, and the lazy sequences and dicts of Airflow lists and dicts.

    :param value: any value.
    :param path: name of the value in errors.
    :param later: recognises values that are not known yet; they become None.
    :param exact: whether a value that would change its type is rejected, because it is known by the code that uses it.
    :param result: whether Airflow must be able to store the value as an XCom.
    :raises NotPlainError: something in the value cannot be sent.
    """
    return _Encoder(later, exact, result).encode(value, path, ())


class _Encoder:
    def __init__(self, later: Later | None, exact: bool, result: bool) -> None:
        self._later = later
        self._exact = exact
        self._result = result

    def encode(self, value: Any, path: str, inside: tuple[int, ...]) -> Any:
        if self._later is not None and self._later(value):
            return None
        if value is None or isinstance(value, (bool, str, int, float)):
            return self._scalar(value, path)
        if self._result and isinstance(value, ONLY_ARGUMENTS):
            raise NotPlainError(path, value, f"Airflow cannot store it as an XCom. {_advice(value)}")
        simple = self._simple(value, path)
        if simple is not None:
            return simple
        if id(value) in inside:
            raise NotPlainError(path, value, "Remove the reference to itself.")
        if len(inside) >= DEEPEST:
            raise NotPlainError(path, value, f"Use at most {DEEPEST} levels of nesting.")
        return self._nested(value, path, (*inside, id(value)))

    def _scalar(self, value: Any, path: str) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if self._exact and type(value) not in (str, int, float) and not isinstance(value, Enum):
            raise NotPlainError(path, value, f"Use {type(value).__mro__[-2].__name__}(...) of it.")
        if isinstance(value, str):
            if self._result and "\0" in value:
                raise NotPlainError(path, value, "Use a string without NUL characters: Airflow cannot store them.")
            try:
                return str.__str__(value).encode().decode()
            except UnicodeEncodeError:
                raise NotPlainError(path, value, "Use a string without lone surrogates.") from None
        if isinstance(value, int):
            if value.bit_length() > LONGEST_WHOLE_NUMBER:
                raise NotPlainError(path, value, f"Use an integer of at most {LONGEST_WHOLE_NUMBER} bits, or a string.")
            if self._result and not -(2**63) <= value < 2**63:
                raise NotPlainError(path, value, "Use str(...) of it: Airflow stores whole numbers of up to 64 bits.")
            return int(value)
        if not math.isfinite(value):
            raise NotPlainError(path, value, "Use None: JSON has neither NaN nor infinity.")
        return float(value)

    def _simple(self, value: Any, path: str) -> Any:
        """Return the JSON of a value that contains no others; None for all other values."""
        kind = type(value)
        if isinstance(value, (datetime.date, datetime.time)):
            return self._moment(value, path)
        if kind is datetime.timedelta:
            return _typed("timedelta", [value.days, value.seconds, value.microseconds])
        if kind in (bytes, bytearray):
            return _typed(kind.__name__, base64.b64encode(value).decode())
        if kind is Decimal:
            return _typed("Decimal", str(value))
        if kind is complex and math.isfinite(value.real) and math.isfinite(value.imag):
            return _typed("complex", [value.real, value.imag])
        if kind is range:
            return _typed("range", [value.start, value.stop, value.step])
        if getattr(value, "shape", None) == () and hasattr(getattr(value, "dtype", None), "kind"):
            return self._numpy_scalar(value, path)
        return None

    def _nested(self, value: Any, path: str, inside: tuple[int, ...]) -> Any:
        kind = type(value)
        if kind in (dict, OrderedDict, Counter):
            return self._mapping(value, kind.__name__, path, inside)
        if kind in (list, tuple):
            items = [self.encode(item, f"{path}[{place}]", inside) for place, item in enumerate(value)]
            return items if kind is list else _typed("tuple", items)
        if kind in (set, frozenset):
            # In an order that is the same in every process, because it affects the payload's hash.
            return _typed(
                kind.__name__, [self.encode(item, f"{path} item {item!r}", inside) for item in _sorted(value)]
            )
        if kind is deque:
            items = [self.encode(item, f"{path}[{place}]", inside) for place, item in enumerate(value)]
            return _typed("deque", [items, value.maxlen])
        if kind.__module__.partition(".")[0] == "airflow" and not self._exact:
            if isinstance(value, Mapping):
                return self._mapping(value, "dict", path, inside)
            if isinstance(value, Sequence):
                return [self.encode(item, f"{path}[{place}]", inside) for place, item in enumerate(value)]
        raise NotPlainError(path, value, _advice(value))

    def _mapping(self, value: Mapping[Any, Any], kind: str, path: str, inside: tuple[int, ...]) -> Any:
        pairs = list(value.items())
        if kind == "dict" and TYPE_KEY not in value and all(type(key) is str for key, _ in pairs):
            return {
                self._scalar(key, f"{path}: the key {key!r}"): self.encode(item, f"{path}[{key!r}]", inside)
                for key, item in pairs
            }
        if self._result and kind == "dict" and not all(isinstance(key, str) for key, _ in pairs):
            bad = next(key for key, _ in pairs if not isinstance(key, str))
            raise NotPlainError(f"{path}: the key {bad!r}", bad, "Use str(key): the keys of an XCom are strings.")
        return _typed(
            kind,
            [
                [self.encode(key, f"{path}: the key {key!r}", inside), self.encode(item, f"{path}[{key!r}]", inside)]
                for key, item in pairs
            ],
        )

    def _moment(self, value: Any, path: str) -> Any:
        kind = type(value)
        plain: type[Any] = next(
            base for base in (datetime.datetime, datetime.date, datetime.time) if isinstance(value, base)
        )
        if kind is not plain and (self._exact or kind.__module__.partition(".")[0] not in ("pendulum", "pandas")):
            raise NotPlainError(path, value, f"Use a {plain.__name__} of the module datetime.")
        if str(value) == "NaT":
            raise NotPlainError(path, value, "Use None instead of NaT.")
        if getattr(value, "nanosecond", 0):
            raise NotPlainError(path, value, "Use a time without nanoseconds, or a string.")
        if plain is datetime.date:
            return _typed("date", datetime.date(value.year, value.month, value.day).isoformat())
        zone = self._zone(value, path)
        text = value.replace(tzinfo=None).isoformat()
        return _typed(plain.__name__, [text, zone, value.fold])

    def _zone(self, value: Any, path: str) -> Any:
        """Return a time zone as JSON: None, seconds of a fixed offset, or a name."""
        zone = value.tzinfo
        if zone is None:
            return None
        if type(zone) is datetime.timezone:
            return zone.utcoffset(None).total_seconds()
        name = getattr(zone, "key", None)
        if isinstance(zone, zoneinfo.ZoneInfo) and isinstance(name, str):
            return name
        offset = value.utcoffset()
        if self._exact or offset is None:
            raise NotPlainError(path, value, "Use a time zone of the modules datetime or zoneinfo.")
        # The same moment.
        return offset.total_seconds()

    def _numpy_scalar(self, value: Any, path: str) -> Any:
        kind = value.dtype.kind
        if self._exact:
            raise NotPlainError(path, value, "Use item() of it.")
        if kind == "b":
            return bool(value)
        if kind in "iu":
            return int(value)
        if kind == "f":
            return self._scalar(float(value), path)
        if kind == "M" and str(value) != "NaT":
            found = value.item()
            if isinstance(found, datetime.date):
                return self._moment(found, path)
            raise NotPlainError(path, value, "Use a time without nanoseconds, or a string.")
        raise NotPlainError(path, value, "Use a number, boolean or time: other NumPy scalars are not supported.")


def _typed(kind: str, value: Any) -> dict[str, Any]:
    return {TYPE_KEY: kind, "value": value}


def _sorted(values: Any) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=repr)


def _advice(value: Any) -> str:
    kind, module = type(value), type(value).__module__.partition(".")[0]
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return "Use tuple(...) or _asdict() of it: the class of a named tuple is not sent."
    for base in (list, tuple, dict, set, str, int, float):
        if isinstance(value, base):
            return f"Use {base.__name__}(...) of it: its class is not sent."
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "Use a string, or the path of a file or object that contains the bytes."
    if isinstance(value, (range, deque)):
        return "Use list(...) of it."
    if kind.__name__ == "ObjectRef" and module == "ray":
        return "Use ray.get(...) of it."
    if hasattr(value, "to_dict"):
        return "Use to_dict(...) of it, or the path of a file or object that contains it."
    if hasattr(value, "tolist"):
        return "Use its tolist(), or the path of a file or object that contains it."
    if kind.__name__ in ("UUID", "Fraction", "time", "complex") or isinstance(value, os.PathLike):
        return "Use str(...) of it."
    return (
        "Use None, booleans, numbers, strings, bytes, dates, times, lists, tuples, sets and dicts, or the path of a "
        "file or object that contains the value."
    )


def decode(value: Any) -> Any:
    """Return the value of which ``encode`` made this JSON.

    :raises ValueError: it is not what ``encode`` returns.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if TYPE_KEY not in value:
        return {key: decode(item) for key, item in value.items()}
    kind, inner = value.get(TYPE_KEY), value.get("value")
    make = _MAKERS.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise ValueError(f"A value of the unknown type {kind!r}")
    try:
        return make(inner)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise ValueError(f"A malformed value of type {kind}: {error}") from error


def _zone_of(told: Any) -> datetime.tzinfo | None:
    if told is None:
        return None
    if isinstance(told, str):
        return zoneinfo.ZoneInfo(told)
    return datetime.timezone(datetime.timedelta(seconds=told))


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    return [(decode(key), decode(item)) for key, item in value]


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda value: tuple(decode(list(value))),
    "set": lambda value: set(decode(list(value))),
    "frozenset": lambda value: frozenset(decode(list(value))),
    "deque": lambda value: deque(decode(list(value[0])), value[1]),
    "range": lambda value: range(*value),
    "dict": lambda value: dict(_pairs(value)),
    "OrderedDict": lambda value: OrderedDict(_pairs(value)),
    "Counter": lambda value: Counter(dict(_pairs(value))),
    "bytes": lambda value: base64.b64decode(value),
    "bytearray": lambda value: bytearray(base64.b64decode(value)),
    "Decimal": lambda value: Decimal(str(value)),
    "complex": lambda value: complex(*value),
    "timedelta": lambda value: datetime.timedelta(*value),
    "date": lambda value: datetime.date.fromisoformat(value),
    "time": lambda value: datetime.time.fromisoformat(value[0]).replace(tzinfo=_zone_of(value[1]), fold=value[2]),
    "datetime": lambda value: datetime.datetime.fromisoformat(value[0]).replace(
        tzinfo=_zone_of(value[1]), fold=value[2]
    ),
}
