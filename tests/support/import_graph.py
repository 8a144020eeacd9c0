"""Who imports whom, read from the source: every import statement, those inside functions and for type checking too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "airflow_provider_vertex_ray"

# The arrows of the design point to the same rank or a lower one. Modules at the top of the package are the pure ones.
RANKS = {
    "plugins": 7,
    "task_groups": 6,
    "decorators": 5,
    "operators": 4,
    "sensors": 4,
    "links": 3,
    "triggers": 3,
    "hooks": 2,
    "api": 1,
    "remote": 0,
}
PURE = 0
EMULATOR = "emulator"


@dataclass(frozen=True)
class Arrow:
    """One import.

    :param file: The importing file, relative to the package's folder.
    :param line: Where in it.
    :param target: The full dotted name of what is imported; of ``from x import y`` that is ``x.y``.
    """

    file: str
    line: int
    target: str

    @property
    def room(self) -> str:
        """The folder of the importing file; empty for a module at the top."""
        return self.file.split("/")[0] if "/" in self.file else ""

    @property
    def target_room(self) -> str | None:
        """The folder of what is imported; empty for a module at the top, None outside of the package."""
        if self.target != PACKAGE and not self.target.startswith(PACKAGE + "."):
            return None
        first = self.target.removeprefix(PACKAGE).lstrip(".").split(".")[0]
        return first if first in RANKS or first == EMULATOR else ""

    def is_of(self, *packages: str) -> bool:
        """Whether it imports one of these packages or something in it."""
        return any(self.target == package or self.target.startswith(package + ".") for package in packages)


def arrows(root: Path) -> Iterator[Arrow]:
    """Every import in the files below the package's folder ``root``."""
    for file in sorted(root.rglob("*.py")):
        inside = file.relative_to(root)
        # What a relative import of this file starts from.
        home = (PACKAGE, *inside.parts[:-1])
        for node in ast.walk(ast.parse(file.read_text())):
            for target in _targets(node, home):
                yield Arrow(inside.as_posix(), getattr(node, "lineno", 0), target)


def _targets(node: ast.AST, home: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        start = ".".join(home[: len(home) - node.level + 1]) if node.level else ""
        module = ".".join(filter(None, [start, node.module or ""]))
        yield from (f"{module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        first = node.args[0] if node.args else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


def violations(root: Path) -> list[str]:
    """Arrows that the design does not allow, each as a sentence."""
    found = []
    for arrow in arrows(root):
        where, to = f"{arrow.file}:{arrow.line}", arrow.target_room
        if to is None:
            continue
        if arrow.room == EMULATOR:
            if to != EMULATOR:
                found.append(f"{where}: the emulator imports {arrow.target}")
        elif to == EMULATOR:
            found.append(f"{where}: {arrow.room or 'the top'} imports the emulator")
        elif RANKS.get(to, PURE) > RANKS.get(arrow.room, PURE):
            found.append(f"{where}: an arrow upwards, {arrow.room or 'the top'} -> {to}")
    return found
