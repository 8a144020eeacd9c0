"""What a terminal would have overwritten is not shown line by line, and nothing else is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.job.log_tidy import SHOWN_SECONDS, LogTidy, bar_of, without_control

UP = "\x1b[A"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Screen:
    """Takes a program's output, and keeps what is shown of it."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.places: list[int] = []
        self.clock = Clock()
        self._tidy = LogTidy(self._show, self.clock)
        self._at = 0

    def _show(self, text: str, start: int) -> None:
        self.shown.append(text)
        self.places.append(start)

    def print(self, *lines: str) -> None:
        for line in lines:
            self._tidy.take(line, self._at)
            self._at += len(line) + 1

    def end(self) -> list[str]:
        self._tidy.close()
        return self.shown


def read(percent: int, seconds: int = 2) -> str:
    return f"- ReadRange->Map(f): {percent}%|▍    | {percent / 10:.2f}/10.0 [00:{seconds:02d}<?, ? row/s]"


def running(rows: int, seconds: int = 2) -> str:
    return f"Running Dataset. Active & requested resources: {rows}/4 CPU: : {rows}.00 row [00:{seconds:02d}, 1.9 row/s]"


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("\x1b[36m(f pid=7)\x1b[0m hello", "(f pid=7) hello"),
        (f"{UP}{UP}- Read", "- Read"),
        ("\x1b[2K\x1b[1;31mred\x1b[m", "red"),
        ("\x1b[38;2;255;100;0mtrue colour\x1b[39m", "true colour"),
        ("\x1b]8;;https://example.com\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b7saved\x1b8", "saved"),
        ("\x1b(Bplain", "plain"),
        ("cut off \x1b[3", "cut off "),
        ("cut off \x1b", "cut off "),
        ("[A is no sequence, nor is [0m", "[A is no sequence, nor is [0m"),
        ("", ""),
    ],
)
def test_control_sequences_are_removed_whole(raw: str, plain: str) -> None:
    assert without_control(raw) == plain


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("  0%|          | 0/10 [00:00<?, ?it/s]", ""),
        ("100%|██████████| 10/10 [00:05<00:00,  1.98it/s]", ""),
        ("epoch 3:  40%|████      | 4/10 [00:02<00:03,  1.98it/s, loss=0.3]", "epoch #:"),
        ("Downloading: 1.20MB [00:01, 1.10MB/s]", "Downloading:"),
        ("17it [01:02:03,  3.65s/it]", ""),
        ("model.bin:  12%|█▏  | 120M/1.00G [00:12<01:20, 11.0MB/s]", "model.bin:"),
        (read(10), "- ReadRange->Map(f):"),
        (running(3), "Running Dataset. Active & requested resources: # CPU: :"),
        ("fit: 3%|▎ | 3/100 [00:02<1 day, 00:03:01, 2.0s/it]", "fit:"),
    ],
)
def test_progress_bars_are_known(line: str, name: str) -> None:
    found = bar_of(line)
    assert found is not None
    assert found[0] == name
    assert found[1] == line.startswith("100%")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "40% of the rows are done [00:02]",
        "INFO [00:02, took 3 s]",
        "[2026-11-29 15:16:14,123] INFO 3 rows/s",
        "loss 0.31 [epoch 3] 12 rows/s",
        "read 10 files at 3 MB/s",
        "x" * 600 + " 10%|█ | 1/10 [00:02<?, ?it/s]",
    ],
)
def test_other_lines_are_no_progress_bars(line: str) -> None:
    assert bar_of(line) is None


def test_a_bar_is_shown_at_first_now_and_then_and_at_last() -> None:
    screen = Screen()
    for percent in range(100):
        screen.print(f"{read(percent)}{UP}", UP, "")
        screen.clock.now += SHOWN_SECONDS / 20
    screen.print("all rows are read")
    assert screen.end() == [read(0), read(20), read(40), read(60), read(80), read(99), "", "all rows are read"]


def test_a_complete_bar_is_shown_before_what_follows() -> None:
    screen = Screen()
    screen.print(*(f"{percent}%|## | {percent}/100 [00:01<00:01, 9it/s]" for percent in (0, 50, 99, 100)), "done")
    first, last = ("0%|## | 0/100 [00:01<00:01, 9it/s]", "100%|## | 100/100 [00:01<00:01, 9it/s]")
    assert screen.end() == [first, last, "done"]


def test_several_bars_are_kept_apart() -> None:
    screen = Screen()
    for step in range(50):
        screen.print(running(step), "", f"{read(step)}{UP}{UP}")
    screen.clock.now += SHOWN_SECONDS
    screen.print("half of it is done")
    for step in range(50, 90):
        screen.print(running(step), "", f"{read(step)}{UP}{UP}")
    assert screen.end() == [
        running(0), read(0), running(49), read(49), "half of it is done", running(89), read(89),
    ]  # fmt: skip


def test_lines_between_redraws_are_all_shown_in_their_order() -> None:
    screen = Screen()
    lines = [f"row {number}" for number in range(30)]
    for number, line in enumerate(lines):
        screen.print(read(number), line)
    shown = screen.end()
    assert [line for line in shown if bar_of(line) is None] == lines
    assert shown[0] == read(0)
    assert shown[-1] == read(29)
    assert len(shown) == 32


def test_empty_lines_of_a_program_stay() -> None:
    screen = Screen()
    screen.print("a", "", "", "b", read(1), "", "c", read(2), "")
    assert screen.end() == ["a", "", "", "b", read(1), "", "c", read(2), ""]


# Words of which some lines look nearly like bars.
WORDS = st.sampled_from(["10%|", "|", "3/10", "[00:02", "<?,", "it/s]", "?", "\x1b", "row", "", " ", "[", "é", "1.5"])


@given(st.lists(st.one_of(st.text(max_size=30), st.lists(WORDS, max_size=6).map(" ".join)), max_size=20))
def test_no_line_but_a_bar_is_ever_left_out(lines: list[str]) -> None:
    screen = Screen()
    screen.print(*lines)
    wanted = [plain for line in lines if bar_of(plain := without_control(line)) is None and plain.strip()]
    assert [line for line in screen.end() if bar_of(line) is None and line.strip()] == wanted
    if not any(bar_of(without_control(line)) for line in lines):
        assert screen.places == sorted(screen.places)
