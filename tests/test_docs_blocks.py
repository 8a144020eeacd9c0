"""Check the code blocks of all pages: each is in a language that is checked, and shell commands exist."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from vertex_ray_emulator import cli

from airflow_provider_vertex_ray.hooks import preflight_command
from airflow_provider_vertex_ray.migrate import command as migrate_command
from devtools.docs_blocks import CHECKS, ROOT, Block, blocks, commands, make_targets, problems
from devtools.docs_site import OTHER_PAGES, changelog

PAGES = [*sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")), *OTHER_PAGES]
PARSERS: dict[str, Any] = {
    "vertex-ray-emulator": cli._parser,
    "vertex-ray-migrate": migrate_command._parser,
    "vertex-ray-preflight": preflight_command._parser,
}


@pytest.mark.parametrize("name", PAGES)
def test_code_blocks_are_of_a_kind_that_is_checked_and_correct(name: str) -> None:
    assert problems((ROOT / name).read_text()) == []


def _shell_commands() -> list[list[str]]:
    shell = [block for name in PAGES for block in blocks((ROOT / name).read_text()) if block.language == "bash"]
    return [words for block in shell for words in commands(block.code)]


@pytest.mark.parametrize("program", PARSERS)
def test_arguments_of_our_commands_are_accepted(program: str) -> None:
    given = [words[1:] for words in _shell_commands() if words[0] == program]
    assert given
    for arguments in given:
        if "--version" not in arguments:
            assert isinstance(PARSERS[program]().parse_args(arguments), argparse.Namespace)


def test_arguments_of_airflow_are_accepted() -> None:
    from airflow.cli.cli_parser import get_parser

    given = [words[1:] for words in _shell_commands() if words[0] == "airflow"]
    assert given
    for arguments in given:
        assert get_parser().parse_args(arguments)


@pytest.mark.parametrize(
    "code",
    [
        "no-such-command --help",
        "make nothing",
        "python -m devtools.nothing",
        ".venv/bin/nothing",
        'eval "$(no-such-command env)"',
        "cd somewhere && no-such-command",
        "A=1 no-such-command",
    ],
)
def test_unknown_commands_are_found(code: str) -> None:
    assert len(problems(f"```bash\n{code}\n```\n")) == 1


@pytest.mark.parametrize(
    "block",
    [
        "```\nx\n```",
        "```ruby\nx\n```",
        "```python\nx = (\n```",
        "```json\n{'a': 1}\n```",
        "```ini\na\n```",
        "```yaml\n{\n```",
    ],
)
def test_blocks_that_nothing_checks_or_that_are_wrong_are_found(block: str) -> None:
    assert len(problems(f"text\n\n{block}\n")) == 1


def test_commands_are_found_whatever_stands_around_them() -> None:
    code = 'A=1 B="x y" one two \\\n  --three\ncd four && eval "$(five six)"  # seven\n'
    assert list(commands(code)) == [["one", "two", "--three"], ["five", "six"], ["cd", "four"], ["eval", "$(five six)"]]


def test_blocks_inside_lists_are_found() -> None:
    assert blocks("- a\n\n  ```bash\n  make test\n  ```\n") == [Block("bash", "make test\n", 3)]


def test_makefile_has_the_target_for_the_site() -> None:
    assert {"docs", "test"} <= make_targets()
    assert {"bash", "python"} <= set(CHECKS)


def test_changelog_has_every_fragment() -> None:
    text = changelog()
    for fragment in (ROOT / "changes").glob("*.*.md"):
        assert fragment.read_text().split()[-1].replace("../docs/", "") in text, fragment.name
    assert "../docs/" not in text


def test_notebook_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "emulator.md").read_text()
    (code,) = (block.code for block in blocks(page) if "vertex_ray_emulator.start" in block.code)
    exec(compile(code, "<docs>", "exec"), {"__name__": "docs"})
    assert "my-project" in capsys.readouterr().out
