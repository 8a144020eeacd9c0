"""The pages of the documentation, and what their tables are compared with."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from airflow_provider_vertex_ray import get_provider_info

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = {path.name: path.read_text() for path in sorted((REPOSITORY / "docs").glob("*.md"))}
PAGES["README.md"] = (REPOSITORY / "README.md").read_text()
ALL_TEXT = "\n".join(PAGES.values())
DOCS_TEXT = "\n".join(text for name, text in PAGES.items() if name != "README.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def public_classes(kinds: tuple[str, ...]) -> dict[str, type]:
    """Return the package's own classes in the modules that are registered with Airflow, by name."""
    modules = [name for kind in kinds for entry in get_provider_info()[kind] for name in entry["python-modules"]]
    return {
        name: value
        for module in modules
        for name, value in vars(import_module(module)).items()
        if inspect.isclass(value) and value.__module__ == module and name.startswith("VertexRay")
    }


def tables_of(text: str) -> Iterator[list[list[str]]]:
    """Yield the rows of each table, header first; cells are stripped of backticks."""
    rows: list[list[str]] = []
    # The empty line ends a table at the end of the text.
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
        elif rows:
            yield [rows[0], *rows[2:]]
            rows = []


def section(heading: str) -> str:
    """Return the text below a heading in docs/, up to the next heading."""
    match = re.search(rf"^#+ `?{re.escape(heading)}`?$\n(.*?)(?=^#+ |\Z)", DOCS_TEXT, re.MULTILINE | re.DOTALL)
    assert match, f"no heading {heading}"
    return match[1]


def parameters_of(task: type) -> dict[str, str]:
    """Return the keyword parameters of the package's own classes in the hierarchy, with the repr of their defaults."""
    found: dict[str, str] = {}
    for base in reversed(task.__mro__):
        if base.__module__.startswith("airflow_provider_vertex_ray") and "__init__" in vars(base):
            for key, parameter in inspect.signature(vars(base)["__init__"]).parameters.items():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    empty = parameter.default is parameter.empty
                    found[key] = "required" if empty else repr(parameter.default)
    return found


OPERATORS_AND_SENSORS = public_classes(("operators", "sensors"))
