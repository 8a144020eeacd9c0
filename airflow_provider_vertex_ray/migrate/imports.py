"""Rewrites the imports of a DAG file, one statement at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import libcst as cst
from libcst import matchers as m

from airflow_provider_vertex_ray.migrate import names

__all__ = ["NewImports", "new_import", "new_import_from"]

_DECORATOR = ("airflow_provider_vertex_ray.decorators.job", "vertex_ray_task")


@dataclass
class NewImports:
    """What takes the place of an import statement.

    :param statements: the new statements; the old one itself if it stays
    :param comments: comments inside the old statement that are in none of the new ones
    :param left: what must be done by hand
    """

    statements: list[cst.Import | cst.ImportFrom]
    comments: list[cst.Comment] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def new_import(node: cst.Import) -> NewImports:
    """Return what takes the place of ``import a.b as c``."""
    found = NewImports([node])
    aliases = []
    for alias in node.names:
        full = str(alias.evaluated_name)
        if alias.asname is not None and full in names.MODULES:
            aliases.append(alias.with_changes(name=_dotted(".".join(names.MODULES[full]))))
            continue
        if names.is_old(full):
            found.left.append(_by_name(full))
        aliases.append(alias)
    if aliases != list(node.names):
        found.statements = [node.with_changes(names=aliases)]
    return found


def new_import_from(node: cst.ImportFrom, *, needs_decorator: bool, keeps_decorator: bool) -> NewImports:
    """Return what takes the place of ``from a.b import c``.

    :param node: the statement
    :param needs_decorator: whether the decorator must be imported; otherwise Airflow's own ``task`` knows it
    :param keeps_decorator: whether astro-provider-ray's decorator must stay as well
    """
    found = NewImports([node])
    module = "" if node.relative or node.module is None else cst.Module([]).code_for_node(node.module)
    if not module:
        return found
    if isinstance(node.names, cst.ImportStar):
        if names.is_old(module) or module in names.CLASSES:
            found.left.append(f"Name what is imported from {module}")
        return found
    kept: list[cst.ImportAlias] = []
    moved: dict[str, list[tuple[str, str | None]]] = {}
    for alias in node.names:
        name, local = str(alias.evaluated_name), alias.evaluated_alias
        full = f"{module}.{name}"
        if name in names.CLASSES.get(module, {}):
            target, here = names.CLASSES[module][name]
            # "X as X" is no alias: its uses are renamed.
            moved.setdefault(target, []).append((here, None if local == name else local))
        elif full in names.MODULES:
            target, here = names.MODULES[full]
            moved.setdefault(target, []).append((here, local or name))
        elif module in names.ASTRO_DECORATORS and name == "ray":
            if needs_decorator:
                moved.setdefault(_DECORATOR[0], []).append((_DECORATOR[1], None))
            if keeps_decorator:
                found.left.append(f"{full} stays for what else uses it")
                kept.append(alias)
        else:
            if full in names.CLASSES or full in names.ASTRO_DECORATORS:
                found.left.append(_by_name(full))
            elif names.is_old(full) or module in names.CLASSES:
                found.left.append(f"{full} has no counterpart")
            kept.append(alias)
    if not moved and len(kept) == len(node.names):
        return found
    comments = [cst.ensure_type(each, cst.Comment) for each in m.findall(node, m.Comment())]
    if comments and len(moved) == 1 and not kept and len(next(iter(moved.values()))) == len(node.names):
        ((target, here_names),) = moved.items()
        found.statements = [_in_place(node, target, here_names)]
        return found
    found.comments = comments
    found.statements = [_statement(target, listed) for target, listed in moved.items()]
    if kept:
        old = [(str(alias.evaluated_name), alias.evaluated_alias) for alias in kept]
        found.statements.append(_statement(module, old))
    return found


def _by_name(module: str) -> str:
    return f"Import the classes of {module} by name, and run vertex-ray-migrate again"


def _in_place(node: cst.ImportFrom, module: str, here: Sequence[tuple[str, str | None]]) -> cst.ImportFrom:
    """Return the statement with other names and the same layout, so that the comments stay where they are."""
    aliases = []
    old = () if isinstance(node.names, cst.ImportStar) else node.names
    for alias, (name, local) in zip(old, here, strict=True):
        asname = alias.asname if local is not None else None
        if asname is None and local is not None:
            asname = cst.AsName(cst.Name(local))
        aliases.append(alias.with_changes(name=cst.Name(name), asname=asname))
    return node.with_changes(module=_dotted(module), names=aliases)


def _dotted(text: str) -> cst.Name | cst.Attribute:
    found = cst.parse_expression(text)
    assert isinstance(found, (cst.Name, cst.Attribute))  # noqa: S101 (for the type checker)
    return found


def _statement(module: str, found: Sequence[tuple[str, str | None]]) -> cst.ImportFrom:
    listed = ", ".join(
        name if alias in (None, name) else f"{name} as {alias}" for name, alias in sorted(set(found), key=str)
    )
    if len(f"from {module} import {listed}") > 110:
        inside = "".join(f"    {name.strip()},\n" for name in listed.split(", "))
        listed = f"(\n{inside})"
    statement = cst.parse_statement(f"from {module} import {listed}\n")
    return cst.ensure_type(cst.ensure_type(statement, cst.SimpleStatementLine).body[0], cst.ImportFrom)
