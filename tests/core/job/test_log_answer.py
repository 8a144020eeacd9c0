"""``{"logs": "…"}``, decoded while it comes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.job.log_lines import LONGEST_START, LogAnswer
from airflow_provider_vertex_ray.errors import UnreadableAnswerError

TEXT = st.text(st.one_of(st.characters(blacklist_categories=("Cs",)), st.sampled_from('\\"\n\r\t/u😀ä')), max_size=40)


@given(st.data(), TEXT, st.booleans(), st.booleans())
def test_any_text_in_any_pieces(data: st.DataObject, text: str, ascii_only: bool, cut: bool) -> None:
    raw = json.dumps({"logs": text, "more": '"'}, ensure_ascii=ascii_only).encode()
    if cut:
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    places = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    answer = LogAnswer()
    got = "".join(answer.feed(raw[a:b]) for a, b in zip([0, *places], [*places, len(raw)], strict=True))
    # What is cut loses no more than what could not be told: half an escape.
    assert text.startswith(got)
    assert answer.complete == (got == text) or cut
    assert len(answer._held) <= 60


@given(TEXT)
def test_one_byte_at_a_time(text: str) -> None:
    answer = LogAnswer()
    got = "".join(answer.feed(bytes([byte])) for byte in json.dumps({"logs": text}).encode())
    assert (got, answer.complete) == (text, True)


def test_a_text_comes_before_its_end() -> None:
    answer = LogAnswer()
    assert answer.feed(b' { "logs" : "one\\ntw') == "one\ntw"
    assert answer.feed(b"o\\") == "o"
    assert answer.feed(b"\\u12") == "\\u12"
    assert answer.feed(b"\\ud83d") == ""
    assert answer.feed(b"\\ude00") == "😀"
    assert not answer.complete
    assert (answer.feed(b'"}'), answer.complete) == ("", True)
    assert answer.feed(b"more") == ""


@pytest.mark.parametrize("raw", [b'{"logs": null}', b'{"logs": ""}'])
def test_no_text(raw: bytes) -> None:
    answer = LogAnswer()
    assert (answer.feed(raw), answer.complete) == ("", True)


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>secret" + b"x" * LONGEST_START,
        b'{"logs": {"token": "secret"}}' + b" " * LONGEST_START,
        b'[{"env_vars": {"A": "secret"}}]' + b" " * LONGEST_START,
        b'{"logs": "\\q secret' + b"x" * 50,
        b'{"logs": "\\u12q secret' + b"x" * 50,
    ],
)
def test_something_else(raw: bytes) -> None:
    with pytest.raises(UnreadableAnswerError, match="not the log of a job|not a JSON string") as caught:
        LogAnswer().feed(raw)
    assert "secret" not in str(caught.value)
