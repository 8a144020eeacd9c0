"""Lines out of pieces: each once and in order, wherever connections break off."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.job.log_lines import (
    LONGEST_LINE,
    LONGEST_RESULT,
    Line,
    LineAssembler,
    LogBytes,
)
from airflow_provider_vertex_ray.core.job.secret_mask import SecretMask
from airflow_provider_vertex_ray.core.job.state import RESULT_MARKER
from airflow_provider_vertex_ray.errors import storable_text

LINES = st.lists(
    st.text(st.characters(blacklist_characters="\n\r", blacklist_categories=("Cs",)), max_size=8), max_size=12
)


@st.composite
def connections(draw: st.DrawFn, text: str) -> list[list[str]]:
    """What several connections say: each begins at the beginning, in pieces, and breaks off anywhere; the last not."""
    ends = [draw(st.integers(0, len(text))) for _ in range(draw(st.integers(0, 4)))]
    found = []
    for end in [*ends, len(text)]:
        cuts = sorted(draw(st.lists(st.integers(0, end), max_size=6)))
        found.append([text[a:b] for a, b in zip([0, *cuts], [*cuts, end], strict=True)])
    return found


def assembled(several: list[list[str]], longest: int = LONGEST_LINE) -> list[Line]:
    got: list[Line] = []
    assembler = LineAssembler(got.append, longest)
    for pieces in several:
        at = 0
        for piece in pieces:
            known = assembler.delivered
            new = assembler.feed(piece, at)
            assert piece.endswith(new)
            assert assembler.delivered == known + len(new)
            at += len(piece)
    assembler.flush()
    assert assembler.complete == assembler.delivered
    return got


def texts(several: list[list[str]], longest: int = LONGEST_LINE) -> list[str]:
    return [line.text for line in assembled(several, longest)]


@given(st.data(), LINES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_each_line_once_and_in_order(data: st.DataObject, lines: list[str], end: str, finished: bool) -> None:
    text = end.join(lines) + (end if finished and lines else "")
    expected = lines if finished or not lines or lines[-1] else lines[:-1]
    got = assembled(data.draw(connections(text)))
    assert [line.text for line in got] == expected
    # Each says where it begins.
    assert all(text[line.start :].startswith(line.text) for line in got)
    assert all(line.start == 0 or text[line.start - 1] == "\n" for line in got)


@given(st.data(), st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ab\r")), max_size=6))
def test_long_lines_are_bounded_however_they_come(data: st.DataObject, lines: list[tuple[int, str]]) -> None:
    text = "".join(letter * length + "\n" for length, letter in lines) + "tail"
    got = assembled(data.draw(connections(text)), 10)
    assert got == assembled([[text]], 10)
    assert all(len(line.text) <= 10 for line in got)
    assert len(got) == len(lines) + 1


@given(st.data(), st.integers(0, 3000), st.sampled_from(["", "\n", "\nnext\n"]))
def test_a_result_is_kept_whole_up_to_its_limit_however_it_comes(data: st.DataObject, more: int, end: str) -> None:
    result = RESULT_MARKER + "ä" * (LONGEST_RESULT - len(RESULT_MARKER) - 1500 + more)
    got = assembled(data.draw(connections(f"before\n{result}{end}")), 30)
    assert got[1][1:] == (len("before\n"), 2 * max(0, more - 1500))
    assert hash(got[1].text) == hash(result[:LONGEST_RESULT])  # not ==, whose report is 48 KiB long
    assert [line.text for line in got[2:]] == (["next"] if "next" in end else [])


def test_a_line_that_never_ends_does_not_fill_the_memory() -> None:
    for start in ("", RESULT_MARKER):
        got: list[Line] = []
        assembler = LineAssembler(got.append)
        assembler.feed(start)
        for _ in range(1000):
            assembler.feed("\r 50%|#####     |" * 100)
            assert len(assembler._rest) <= LONGEST_RESULT
        assert assembler.complete == 0
        assembler.feed("\nnext\n")
        limit = LONGEST_RESULT if start else LONGEST_LINE
        assert [len(got[0].text), got[1].text] == [limit, "next"]
        assert got[0].dropped == (len(start) + 1_700_000 - limit if start else 0)


def test_what_is_complete_ends_with_a_line() -> None:
    assembler = LineAssembler(lambda line: None, 3)
    found = []
    for piece in ("a", "b\n", "c\nd", "toolong", "\n"):
        assembler.feed(piece)
        found.append(assembler.complete)
    assert found == [0, 3, 5, 5, 14]


def test_secrets_are_masked() -> None:
    hide = SecretMask(["secret", "secret-and-more", "four", "a.c*e", "first line\nsecond line\n", ""])
    assert hide("secret-and-more, secrets, four") == "***, ***s, four"
    assert hide("a.c*e abcde") == "*** abcde"
    assert (hide("first line"), hide("> second line"), hide("third line")) == ("***", "> ***", "third line")
    assert hide.longest == len("secret-and-more")


def test_text_without_secrets_is_unchanged() -> None:
    for values in ([], [""], ["1", "true"]):
        hide = SecretMask(values)
        assert (hide("1 is true"), hide.longest) == ("1 is true", 0)


@given(
    st.data(),
    st.binary(max_size=30) | st.lists(st.sampled_from([b"\r", b"\n", b"a", b"\xe9", "ä".encode()])).map(b"".join),
)
def test_bytes_decode_as_ray_reads_its_file_whatever_the_pieces(data: st.DataObject, raw: bytes) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    decoder = LogBytes()
    text = "".join(decoder.feed(raw[a:b]) for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True))
    expected = storable_text(io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8", errors="replace").read())
    # What may still change is held back: a "\r" that may be one of "\r\n", and half a character.
    assert expected.startswith(text)
    assert text + decoder.close() == expected
