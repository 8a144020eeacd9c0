"""A log that is continued from its last lines: nothing twice, nothing lost, and no place guessed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.job import log_end
from airflow_provider_vertex_ray.core.job.log_end import SHORTEST_OVERLAP, WINDOW, Continuation, KnownEnd


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short limits, so that short logs show what long ones do."""
    for name, value in {"WINDOW": 40, "SHORTEST_OVERLAP": 6, "PROBE": 3}.items():
        monkeypatch.setattr(log_end, name, value)


def continued(known: str, answer: str, cuts: list[int]) -> tuple[Continuation, str]:
    found = Continuation(known)
    places = sorted({min(cut, len(answer)) for cut in cuts})
    text = "".join(found.feed(answer[a:b]) for a, b in zip([0, *places], [*places, len(answer)], strict=True))
    return found, text + found.close()


def window(text: str) -> str:
    end = KnownEnd()
    for start in range(0, len(text), 7):
        end.append(text[start : start + 7])
    assert end.lines == text.count("\n")
    return end.text()


CUTS = st.lists(st.integers(0, 400), max_size=6)


@settings(max_examples=400)
@given(st.integers(1, 60), st.integers(0, 20), st.integers(1, 90), st.integers(0, 5), CUTS)
def test_distinct_lines_continue_exactly(known: int, fresh: int, asked: int, half: int, cuts: list[int]) -> None:
    lines = [f"{number:03} line\n" for number in range(known + fresh)]
    before = "".join(lines[:known])
    # The last known line may be unfinished.
    before = before[: len(before) - half]
    end = window(before)
    found, text = continued(end, "".join(lines[-asked:]), cuts)
    assert not found.ambiguous
    if found.found:
        assert before + text == "".join(lines)
    else:
        start = len("".join(lines[:-asked]))
        assert start > len(before) - 6 or len(end) < 6, "an answer that overlaps enough must fit"


@settings(max_examples=600)
@given(st.lists(st.sampled_from(["a\n", "b\n", "\n", "aab\n"]), min_size=4, max_size=60), st.data())
def test_repeating_lines_are_never_placed_where_two_places_fit(lines: list[str], data: Any) -> None:
    known = data.draw(st.integers(3, len(lines)))
    asked = data.draw(st.integers(1, len(lines)))
    before = "".join(lines[:known])
    end, answer = window(before), "".join(lines[-asked:])
    found, _ = continued(end, answer, data.draw(CUTS))
    if found.found and len(answer) <= len(end):
        # It fits, and every overlap that fits as well is too short to count or is not at the start of a line.
        starts = [place for place in range(len(end)) if answer.startswith(end[place:])]
        fits = [s for s in starts if len(end) - s >= 6 and (s == 0 or end[s - 1] == "\n")]
        assert len(fits) <= 1


def test_identical_lines_are_ambiguous() -> None:
    line = "x" * 9 + "\n"
    end = window(line * 20)
    for answer in (line * 3, line * 30, line * 300 + "end\n"):
        found, text = continued(end, answer, [50])
        assert (found.found, found.ambiguous, text) == (False, True, "")


def test_the_real_limits_leave_room() -> None:
    # Half of the window is asked for.
    assert SHORTEST_OVERLAP < WINDOW // 4


@given(st.lists(st.text(max_size=60), max_size=12))
def test_the_known_end_is_the_end(pieces: list[str]) -> None:
    end = KnownEnd()
    for piece in pieces:
        end.append(piece)
    assert end.text() == "".join(pieces)[-40:]
