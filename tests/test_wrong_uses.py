"""The page of wrong uses is what users are really told, and how soon."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from emulator_support.process import EmulatorProcess

from tests.support.wrong_uses import WRONG_USES, Told, World, WrongUse, told

PAGE = Path(__file__).resolve().parent.parent / "docs" / "wrong-uses.md"
WRITE = "WRITE_WRONG_USES"
"""Environment variable with which the page is written anew."""

HEAD = """# Wrong uses

What the most frequent mistakes lead to: the error with which the DAG file or the task ends, word for word, and the
time after which it is there at the latest. The page is written by `tests/test_wrong_uses.py`, which makes each mistake,
with the [emulator](emulator.md) in place of the service; the test fails when a text changes (`WRITE_WRONG_USES=1`
writes the page anew). A missing quota takes as long as Vertex AI takes to refuse the cluster. What the types of errors
mean is in [Troubleshooting](troubleshooting.md#by-error-type).

| mistake | example | the error | after at most |
| --- | --- | --- | --- |
"""


def row(use: WrongUse, found: Told) -> str:
    when = f"{use.within:g} s" if use.within else "at once: the DAG file fails"
    return f"| {use.name} | {code(use.example)} | {code(found.message)} | {when} |\n"


def code(text: str) -> str:
    """A cell of a table with the text in one line; a vertical bar would end it."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


@pytest.fixture(scope="module")
def rows() -> dict[str, str]:
    """The rows that the tests of this module have made."""
    return {}


@pytest.mark.parametrize("use", WRONG_USES, ids=lambda use: use.name)
def test_wrong_use_is_told_as_the_page_says(
    use: WrongUse, fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: dict[str, str]
) -> None:
    if "triggerer" in use.name and find_spec("airflow.sdk") is None:
        pytest.skip("Airflow 2 reads its own database, which is empty here")
    found = told(use, World(fake_emulator, monkeypatch, tmp_path))
    rows[use.name] = row(use, found)
    # On a busy machine, everything takes longer.
    assert found.seconds < max(10 * use.within, 60)
    assert "Traceback" not in found.message
    # The next step is part of every message.
    steps = "use|did you mean|check|start|create|set|request|reserve|choose"
    assert re.search(rf"\b({steps})\b", found.message, re.IGNORECASE)
    if not os.environ.get(WRITE):
        assert rows[use.name] in PAGE.read_text(), f"Write it anew with {WRITE}=1 pytest {Path(__file__).name}"


def test_page_has_nothing_else(rows: dict[str, str]) -> None:
    if os.environ.get(WRITE):
        assert len(rows) == len(WRONG_USES)
        PAGE.write_text(HEAD + "".join(rows.values()))
    page = PAGE.read_text()
    assert page.startswith(HEAD)
    assert [line.split(" | ")[0].removeprefix("| ") for line in page.removeprefix(HEAD).splitlines()] == [
        use.name for use in WRONG_USES
    ]
