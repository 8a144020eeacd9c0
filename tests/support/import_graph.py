"""Who imports whom, read from the source: every import statement, those inside functions and for type checking too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "airflow_provider_vertex_ray"
EMULATOR = "vertex_ray_emulator"

# The arrows of the design point to the same rank or a lower one. The modules at the top are public faces and errors.
RANKS = {
    "plugins": 7,
    "task_groups": 6,
    "decorators": 5,
    "operators": 4,
    "sensors": 4,
    "triggers": 3,
    "hooks": 2,
    "links": 2,
    "core": 1,
    "migrate": 1,
    "remote": 0,
}
FACES = {"cluster_spec", "log_query", "price_table"}
"""Modules at the top that DAG authors import and the package itself does not."""


@dataclass(frozen=True)
class Arrow:
    """One import.

    :param file: The importing file, relative to the package's folder.
    :param line: Its line number.
    :param target: The full dotted name of what is imported; for ``from x import y`` that is ``x.y``.
    """

    file: str
    line: int
    target: str

    @property
    def room(self) -> str:
        """Return the folder of the importing file; empty for a module at the top."""
        return self.file.split("/")[0] if "/" in self.file else ""

    @property
    def target_room(self) -> str | None:
        """Return the folder of the imported module; empty for one at the top, None outside of the package."""
        if self.target != PACKAGE and not self.target.startswith(PACKAGE + "."):
            return None
        first = self.target.removeprefix(PACKAGE).lstrip(".").split(".")[0]
        return first if first in RANKS else ""

    def is_of(self, *packages: str) -> bool:
        """Tell whether it imports one of these packages or something in it."""
        return any(self.target == package or self.target.startswith(package + ".") for package in packages)


def arrows(root: Path, package: str = PACKAGE) -> Iterator[Arrow]:
    """Yield every import in the files below the package's folder ``root``."""
    for file in sorted(root.rglob("*.py")):
        inside = file.relative_to(root)
        # What a relative import of this file starts from.
        home = (package, *inside.parts[:-1])
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
    """Return the arrows that the design does not allow, each as a sentence."""
    found = []
    for arrow in arrows(root):
        where, to = f"{arrow.file}:{arrow.line}", arrow.target_room
        if arrow.is_of(EMULATOR):
            found.append(f"{where}: imports the emulator")
        if to is None:
            continue
        if to == "" and arrow.room and arrow.is_of(*(f"{PACKAGE}.{face}" for face in FACES)):
            found.append(f"{where}: imports a public face instead of core")
        elif to and arrow.room and RANKS[to] > RANKS[arrow.room]:
            found.append(f"{where}: an arrow upwards, {arrow.room} -> {to}")
        elif to and not arrow.room and not (to == "core" and Path(arrow.file).stem in FACES):
            found.append(f"{where}: an arrow upwards, the top -> {to}")
        elif arrow.room == "core" and to == "core":
            subject, target = (_subject(name) for name in (arrow.file.split("/", 1)[1], arrow.target.split(".", 2)[2]))
            if subject in ("http", "") and target not in ("http", ""):
                found.append(f"{where}: an arrow upwards, core/{subject or 'the top'} -> core/{target}")
    return found


def _subject(inside_core: str) -> str:
    """Return the subject's folder inside ``core``; empty for a module directly in it."""
    first = inside_core.replace("/", ".").split(".")[0]
    files = ("checks", "data_rows", "deadlines", "options", "storable", "threads", "timestamps", "__init__")
    return "" if first in files else first


def circles(root: Path, package: str = PACKAGE) -> list[list[str]]:
    """Return the groups of files that import each other in a circle, directly or over others.

    Imports inside functions and for type checking count too. A package's ``__init__`` is not part of a circle just
    because Python imports it before its modules.
    """
    modules = {}
    for file in root.rglob("*.py"):
        name = ".".join((package, *file.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        modules[name] = file.relative_to(root).as_posix()
    edges: dict[str, set[str]] = {file: set() for file in modules.values()}
    for arrow in arrows(root, package):
        target = modules.get(arrow.target) or modules.get(arrow.target.rpartition(".")[0])
        if target is not None and target != arrow.file:
            edges[arrow.file].add(target)
    return _strongly_connected(edges)


def _strongly_connected(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the components with more than one node, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for after in sorted(edges[node]):
            if after not in index:
                visit(after)
                low[node] = min(low[node], low[after])
            elif after in stack:
                low[node] = min(low[node], index[after])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found
