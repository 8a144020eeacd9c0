"""The typed boundary: what fits a model is decoded, and everything else is an unreadable answer, within bounds."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.http import decoding
from airflow_provider_vertex_ray.core.http.decoding import (
    MAX_DEPTH,
    ArrayReader,
    Blank,
    Int64,
    JsonObject,
    check_shape,
    clean,
    decode,
    decode_off_loop,
    whole,
)
from airflow_provider_vertex_ray.core.http.element_skip import ElementSkip
from airflow_provider_vertex_ray.errors import UnreadableAnswerError


class Thing(msgspec.Struct):
    name: str
    size: Annotated[int, msgspec.Meta(ge=0, le=10**6)] | None = None


ODD = {
    "empty": b"",
    "blank": b" \n",
    "null": b"null",
    "true": b"true",
    "number": b"7",
    "text": b'"ok"',
    "list": b"[]",
    "page": b"<html>Be right back</html>",
    "cut": b'{"name": "a',
    "more": b'{"name": "a"} {"name": "b"}',
    "missing field": b"{}",
    "null field": b'{"name": null}',
    "other type": b'{"name": 7}',
    "list for text": b'{"name": ["a"]}',
    "text for number": b'{"name": "a", "size": "7"}',
    "true for number": b'{"name": "a", "size": true}',
    "out of range": b'{"name": "a", "size": 1000001}',
    "400 digits": b'{"name": "a", "size": 1' + b"0" * 400 + b"}",
    "5000 digits": b'{"name": "a", "size": 1' + b"0" * 5000 + b"}",
    "infinite": b'{"name": "a", "size": 1e999}',
    "not a number": b'{"name": "a", "size": NaN}',
    "deep": b"[" * 100_000,
    "deep in an unknown field": b'{"name": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "control character": b'{"name": "a\x00b"}',
    "other encoding": '{"name": "a"}'.encode("utf-16"),
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_what_does_not_fit_is_unreadable(content: bytes) -> None:
    with pytest.raises(UnreadableAnswerError):
        decode(content, Thing)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
@example(b'"\\ud800')
@example(b"\\")
def test_any_bytes_are_decoded_or_unreadable(content: bytes) -> None:
    for kind in (Thing, JsonObject, list[Thing], dict[str, Any]):
        try:
            decode(content, kind)  # type: ignore[arg-type]
        except UnreadableAnswerError:
            continue


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b'{"name": "a"}', "a"),
        (b'\xef\xbb\xbf{"name": "a"}', "a"),
        (b'{"name": "a\xff"}', "a\ufffd"),
        (b'{"name": "a\\ud800"}', "a\ufffd"),
        (b'{"name": "\\udfff\\ud800x"}', "\ufffd\ufffdx"),
        (b'{"name": "\\ud83c\\udf89"}', "🎉"),
        # An escaped backslash before a word that only looks like an escape.
        (b'{"name": "\\\\ud800\xff"}', "\\ud800\ufffd"),
        (b'{"name": "a", "unknown": {"x": "\\ud800"}}', "a"),
        (b'{"name": "a\\u0000"}', "a\x00"),
        ('{"name": "ä"}', "ä"),
    ],
)
def test_texts_that_are_not_unicode_are_repaired(content: bytes | str, name: str) -> None:
    assert decode(content, Thing).name == name


def test_depth_of_an_open_part_is_bounded() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a": ' + b"[" * depth + b"]" * depth + b"}"

    assert decode(nested(MAX_DEPTH - 2), JsonObject)
    with pytest.raises(UnreadableAnswerError, match="nested too deeply"):
        decode(nested(MAX_DEPTH), JsonObject)


def test_size_of_an_open_part_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_NODES", 100)
    assert decode(json.dumps({"a": [0] * 90}).encode(), JsonObject)
    with pytest.raises(UnreadableAnswerError, match="more than 100 values"):
        decode(json.dumps({"a": [0] * 100}).encode(), JsonObject)


def test_blank_answer_has_no_content() -> None:
    assert decode(b"", Blank) == decode(b" \r\n", Blank) == Blank()
    with pytest.raises(UnreadableAnswerError):
        decode(b"<html>sign in</html>", Blank)


async def test_large_answer_is_decoded_as_well() -> None:
    content = json.dumps({"name": "a" * 2 * decoding.INLINE_BYTES}).encode()
    assert len((await decode_off_loop(content, Thing)).name) == 2 * decoding.INLINE_BYTES
    with pytest.raises(UnreadableAnswerError):
        await decode_off_loop(content[:-1], Thing)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((3, 3), ("3", 3), ("-12", -12), (None, 0)),
        *((odd, None) for odd in ("", "1.5", "²", " 3", 2**63, "9" * 30, True, 1.5)),
    ],
)
def test_int64_fields_are_numbers_or_their_texts(value: object, number: int | None) -> None:
    kind = Int64 | None
    if number is None:
        with pytest.raises(UnreadableAnswerError):
            check_shape(value, kind)  # type: ignore[arg-type]
    else:
        assert whole(check_shape(value, kind)) == number  # type: ignore[arg-type]


@given(st.text(st.characters()))
@example("a\ud800")
def test_clean_text_can_be_stored(text: str) -> None:
    clean(text).encode()
    assert len(clean(text)) == len(text)
    assert clean(None) == ""


def test_clean_text_keeps_everything_else() -> None:
    assert clean("ä🎉\n\t") == "ä🎉\n\t"


# --- streamed lists -------------------------------------------------------------------------------------------------


def read_in(content: bytes, cuts: list[int]) -> list[Thing]:
    reader = ArrayReader(Thing)
    found: list[Thing] = []
    begin = 0
    for cut in [*sorted({min(each, len(content)) for each in cuts}), len(content)]:
        found += reader.feed(content[begin:cut])
        begin = cut
    return [*found, *reader.finish()]


NAMES = st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=5), max_size=6)


@given(NAMES, st.lists(st.integers(0, 300), max_size=8), st.sampled_from([None, 1]), st.booleans())
def test_streamed_list_is_the_same_in_all_pieces(
    names: list[str], cuts: list[int], indent: int | None, escaped: bool
) -> None:
    content = json.dumps([{"name": name, "x": [{}]} for name in names], indent=indent, ensure_ascii=escaped).encode()
    assert [thing.name for thing in read_in(content, cuts)] == names


@given(NAMES.filter(bool), st.data())
def test_incomplete_list_is_unreadable(names: list[str], data: st.DataObject) -> None:
    content = json.dumps([{"name": name} for name in names]).encode()
    cut = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(UnreadableAnswerError):
        read_in(content[:cut], [])


@pytest.mark.parametrize(
    "content",
    [
        *(each for each in ODD.values() if each not in (b"[]",)),
        b"[1, 2]",
        b"[null]",
        b"[[]]",
        b'["a"]',
        b"[,]",
        b'[{"name": "a"},]',
        b'[{"name": "a"} {"name": "b"}]',
        b"[] []",
        b'[{"name": "a"}] x',
        b'[{"name": "a", "x": ' + b"[" * 100_000,
        b'[{"name": 7}]',
        b'[{"name": "a", "x": [' + b"[]," * decoding.MOST_CONTAINERS + b"[]]}]",
        b'[{"name": "' + b"a" * (decoding.LONGEST_ELEMENT + 10) + b'"}]',
    ],
)
def test_what_is_no_list_of_things_is_unreadable(content: bytes) -> None:
    with pytest.raises(UnreadableAnswerError):
        read_in(content, list(range(0, len(content), 50_000)))


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=6) | st.sampled_from(['"id": "x"', "\\\\", '\\"', "id", "{", "]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner | st.just("no"), max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["id", "a", "\\", '"']), VALUES, max_size=4), st.lists(st.integers(0, 80)))
def test_end_and_name_of_a_skipped_element(element: dict[str, Any], cuts: list[int]) -> None:
    text = json.dumps(element)
    skip = ElementSkip("id")
    begin, ends = 0, []
    for cut in [*sorted({min(each, len(text)) for each in cuts}), len(text) + 3]:
        end = skip.feed((text + ", x")[begin:cut])
        if end is not None:
            ends.append(begin + end)
            break
        begin = cut
    assert ends == [len(text)]
    name = element.get("id")
    assert skip.found == (name if isinstance(name, str) else None)


def test_empty_list_is_a_list() -> None:
    assert read_in(b" [ ] ", [1, 2, 3]) == []


@given(st.binary(max_size=100), st.lists(st.integers(0, 100), max_size=5))
def test_any_bytes_are_a_list_or_unreadable(content: bytes, cuts: list[int]) -> None:
    try:
        read_in(content, cuts)
    except UnreadableAnswerError:
        return
