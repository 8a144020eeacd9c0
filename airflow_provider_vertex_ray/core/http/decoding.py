"""The typed boundary: JSON from outside is decoded into declared models, within bounds, or is an unreadable answer.

The models are msgspec structs, which are decoded without building what they do not declare. msgspec is part of every
installation of Airflow 3. pydantic, which is part of Airflow as well, needs several times as long for each answer, and
a parsed copy of all of it.
"""

from __future__ import annotations

import asyncio
import codecs
import functools
import json
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Generic, TypeVar, cast

import msgspec

from airflow_provider_vertex_ray.core.http.element_skip import ElementSkip
from airflow_provider_vertex_ray.errors import UnreadableAnswerError

__all__ = [
    "ArrayReader",
    "Blank",
    "Count",
    "Int64",
    "JsonObject",
    "Milliseconds",
    "Scalar",
    "check_shape",
    "clean",
    "decode",
    "decode_off_loop",
    "whole",
]

T = TypeVar("T")

MAX_JSON_BYTES = 8 << 20
"""Maximum size of a JSON answer in bytes, unless the call allows more or less."""

MAX_DEPTH = 100
"""Maximum depth of nested lists and objects in a part of an answer that no model describes."""

MAX_NODES = 1_000_000
"""Maximum number of values in such parts of an answer."""

INLINE_BYTES = 128 << 10
"""Size in bytes above which an answer is decoded in a thread."""

LONGEST_ELEMENT = 1 << 20
"""Maximum length in characters of one element of a streamed list."""

MOST_CONTAINERS = 50_000
"""Maximum number of lists and objects in one element of a streamed list, which is decoded in one go."""

SLICE = 1 << 14
"""Bytes of a streamed list that are processed before other tasks of the event loop may run."""

JsonObject = dict[str, Any]
"""An object of which the whole content is needed."""

Scalar = str | int | float | bool | None

Count = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A whole number of 64 bits."""

Int64 = Count | Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,18}$")]
"""An int64 field of a Google API, which protobuf's JSON writes as a string."""

Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=4_102_444_800_000)]
"""Milliseconds since 1970, before the year 2100."""


class Blank(msgspec.Struct):
    """The model of an answer whose body is empty."""


def whole(value: Int64 | None) -> int:
    """Return the number in an int64 field; 0 for a missing one."""
    return int(value or 0)


def clean(text: str | None) -> str:
    """Return a text with its lone surrogates, which no other system can store, replaced; empty for None."""
    if not text or text.isascii():
        return text or ""
    return text.encode("utf-8", "replace").decode()


def decode(content: bytes | bytearray | str, kind: type[T]) -> T:
    """Return an answer's JSON as an instance of its model.

    :param content: the body
    :param kind: the model: a struct, or a container of them; ``Blank`` for an empty body
    :raises UnreadableAnswerError: the body is not JSON, does not fit the model, or exceeds a bound
    """
    if kind is Blank:
        if content.strip():
            raise UnreadableAnswerError("The answer has a content where none is expected.")
        return kind()
    if not content.strip():
        raise UnreadableAnswerError("The answer is empty.")
    model: Any = kind
    decoder = _decoder(model)
    try:
        try:
            found = decoder.decode(content)
        except (msgspec.DecodeError, UnicodeError) as error:
            if isinstance(error, msgspec.ValidationError) or len(content) > LONGEST_ELEMENT:
                raise
            found = decoder.decode(_repaired(content))
    except (msgspec.MsgspecError, UnicodeError, ValueError) as error:
        raise UnreadableAnswerError(f"The answer has an unexpected form: {error}.") from None
    except RecursionError:
        raise UnreadableAnswerError("The answer is nested too deeply.") from None
    if _is_open(model):
        _check_bounds(found)
    return cast("T", found)


async def decode_off_loop(content: bytes | bytearray | str, kind: type[T]) -> T:
    """Return what ``decode`` returns; a large answer is decoded in a thread."""
    if len(content) <= INLINE_BYTES:
        return decode(content, kind)
    return await asyncio.to_thread(decode, content, kind)


def check_shape(value: Any, kind: type[T]) -> T:
    """Return a decoded value as an instance of a model.

    :param value: lists, dicts and scalars
    :param kind: the model
    :raises UnreadableAnswerError: the value does not fit the model
    """
    try:
        return msgspec.convert(value, kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise UnreadableAnswerError(f"The answer has an unexpected form: {error}.") from None
    except RecursionError:
        raise UnreadableAnswerError("The answer is nested too deeply.") from None


class ArrayReader(Generic[T]):
    """Decodes a list of any length, element by element, while it arrives.

    :param kind: the model of an element, which must be an object
    :param spare: receives the name of an element that cannot be read, None if it has none, and the error; returns
        whether to go on without it. By default, such an element makes the whole list unreadable.
    :param name_field: the field with the name of an element
    :param redact: removes secrets from the text of the list
    """

    def __init__(
        self,
        kind: type[T],
        spare: Callable[[str | None, UnreadableAnswerError], bool] | None = None,
        name_field: str = "",
        redact: Callable[[str], str] = str,
    ) -> None:
        self._kind = kind
        self._redact = redact
        self._spare = spare
        self._name_field = name_field
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._json = json.JSONDecoder(strict=False)
        self._held = ""
        self._wanted = 0
        self._next = "["
        self._begun = False
        self._skip: tuple[ElementSkip, UnreadableAnswerError] | None = None

    def feed(self, data: bytes) -> Iterator[T]:
        """Yield the elements that are complete with the next piece of the body.

        :raises UnreadableAnswerError: the body is not a list, or an element does not fit the model or is too long
        """
        held = self._held + self._text.decode(data)
        if len(held) < self._wanted:
            self._held = held
            return
        # Not before: a secret may come in two pieces.
        held = self._redact(held)
        if len(self._held) > INLINE_BYTES and held.count("[") + held.count("{") > MOST_CONTAINERS:
            # All that was held is one element, which has not ended yet.
            self._begin_skip("An element of the list has too many parts.")
        at = self._wanted = 0
        while True:
            if self._skip is not None:
                end = self._skip[0].feed(held[at:])
                if end is None:
                    self._held = ""
                    return
                self._end_skip()
                at += end
            if (at := _SPACE.match(held, at).end()) >= len(held):  # type: ignore[union-attr]
                break
            char = held[at]
            if self._next == "{" and char == "{":
                begin = at
                try:
                    value, at = self._json.raw_decode(held, at)
                except RecursionError:
                    self._begin_skip("The answer is nested too deeply.")
                    continue
                except ValueError:
                    missing = len(held) - at
                    if missing > LONGEST_ELEMENT:
                        self._begin_skip("An element of the list is not JSON, or is too long.")
                        continue
                    # It may be incomplete. Doubled, so that a long element is not read again with each piece.
                    self._wanted = min(2 * missing, LONGEST_ELEMENT + 1)
                    break
                self._next, self._begun = ",", True
                try:
                    if at - begin > LONGEST_ELEMENT:
                        raise UnreadableAnswerError("An element of the list is too long.")
                    found = check_shape(value, self._kind)
                except UnreadableAnswerError as error:
                    name = value.get(self._name_field)
                    self._without(name if isinstance(name, str) else None, error)
                    continue
                yield found
                continue
            if char == "]" and (self._next == "," or (self._next == "{" and not self._begun)):
                self._next = ""
            elif char == self._next and char in "[,":
                self._next = "{"
            else:
                raise UnreadableAnswerError("The answer is not a list of objects.")
            at += 1
        self._held = held[at:]

    def _begin_skip(self, why: str) -> None:
        error = UnreadableAnswerError(why)
        if self._spare is None:
            raise error from None
        self._skip = ElementSkip(self._name_field), error

    def _end_skip(self) -> None:
        assert self._skip is not None  # noqa: S101 - for the type
        (skip, error), self._skip = self._skip, None
        self._next, self._begun = ",", True
        self._without(skip.found, error)

    def _without(self, name: str | None, error: UnreadableAnswerError) -> None:
        """Go on without an element that cannot be read.

        :raises UnreadableAnswerError: it must not be left out
        """
        if self._spare is None or not self._spare(name, error):
            raise error

    def finish(self) -> Iterator[T]:
        """Yield the last elements, at the end of the body.

        :raises UnreadableAnswerError: the list is incomplete
        """
        self._wanted = 0
        yield from self.feed(b"")
        if self._next or self._skip is not None:
            raise UnreadableAnswerError("The list is empty or incomplete.")


_SPACE = re.compile(r"[ \t\r\n]*")

# One escape sequence at a time, so that the escaped backslash in "\\ud800" is not taken for the start of another.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def _repaired(content: bytes | bytearray | str) -> bytes:
    """Return JSON with a replacement character for each byte that is not UTF-8, and for each lone surrogate."""
    text = content if isinstance(content, str) else content.decode("utf-8-sig", "replace")
    data = text.encode("utf-8", "replace")
    return _ESCAPE.sub(lambda match: b"\\ufffd" if match[1] else match[0], data)


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


@functools.cache
def _is_open(kind: Any) -> bool:
    """Tell whether a model has parts that may contain anything."""
    pending: list[Any] = [msgspec.inspect.type_info(kind)]
    seen: set[Any] = set()
    while pending:
        info = pending.pop()
        if isinstance(info, msgspec.inspect.AnyType):
            return True
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls not in seen:
                seen.add(info.cls)
                pending += [each.type for each in info.fields]
        elif isinstance(info, msgspec.inspect.UnionType):
            pending += info.types
        elif isinstance(info, msgspec.inspect.DictType):
            pending.append(info.value_type)
        elif isinstance(info, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
            pending.append(info.item_type)
        elif isinstance(info, msgspec.inspect.TupleType):
            pending += info.item_types
    return False


def _check_bounds(value: Any) -> None:
    level = [value]
    nodes = 0
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list | tuple):
                inner += each
            elif isinstance(each, msgspec.Struct):
                inner += (getattr(each, field) for field in each.__struct_fields__)
        level = inner
        nodes += len(level)
        if not level:
            return
        if nodes > MAX_NODES:
            raise UnreadableAnswerError(f"The answer has more than {MAX_NODES} values.")
    raise UnreadableAnswerError("The answer is nested too deeply.")
