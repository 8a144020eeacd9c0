"""Source of a class that is sent to a cluster; as with ``function_source``, nothing but the class itself is sent."""

from __future__ import annotations

import builtins
import inspect
import symtable
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from airflow_provider_vertex_ray.core.function.source import ALWAYS_DEFINED, CONSTANT, not_plain_rule
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.remote.values import NotPlainError, encode

__all__ = ["class_payload"]

# Names that the compiler itself defines in a class.
_IMPLICIT = {"__class__", "__module__", "__qualname__"}


def class_payload(kind: type) -> dict[str, Any]:
    """Return the payload from which ``remote.runner.load`` defines the class without its file.

    :raises InvalidArgumentError: the class cannot be sent; the error names the class, the name and the rule
    """
    try:
        lines, first_line = inspect.getsourcelines(kind)
        filename = inspect.getsourcefile(kind) or "<unknown>"
    except (OSError, TypeError) as error:
        raise _refused(kind, kind, f"Define the class in a file; its source cannot be read ({error}).") from error
    bases = [base.__name__ for base in kind.__bases__ if base is not object]
    if bases:
        raise _refused(kind, ", ".join(bases), "Use 'module:class'; a class with a base class cannot be sent.")
    source = "".join(lines)
    if lines[0].lstrip().startswith("@"):
        raise _refused(kind, lines[0].strip(), "Use 'module:class'; a decorated class cannot be sent.")
    text = "from __future__ import annotations\n" + ("if 1:\n" if source[:1] in " \t" else "") + source
    scope = _scope(kind)
    constants = {}
    for name in sorted(_outer_names(symtable.symtable(text, filename, "exec"), kind.__name__)):
        if name == kind.__name__ or name in ALWAYS_DEFINED or (name not in scope and hasattr(builtins, name)):
            continue
        if name in scope and CONSTANT.fullmatch(name) and not isinstance(scope[name], (ModuleType, type)):
            try:
                constants[name] = encode(scope[name], name, exact=True)
            except NotPlainError as error:
                raise _refused(kind, name, not_plain_rule(error)) from None
            continue
        raise _refused(
            kind,
            name,
            "Import it inside the methods, or pass it as an argument; only the class itself is sent.",
        )
    return {
        "filename": filename,
        "first_line": first_line,
        "source": source,
        "future_annotations": True,
        "kept_decorators": 0,
        "imports": [],
        "defaults": {},
        "constants": constants,
    }


def _refused(kind: type, value: object, rule: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"class {kind.__qualname__}", value, rule)


def _scope(kind: type) -> dict[str, Any]:
    for value in vars(kind).values():
        if isinstance(value, FunctionType):
            return value.__globals__
    return vars(sys.modules.get(kind.__module__) or ModuleType(kind.__module__))


def _outer_names(module: symtable.SymbolTable, name: str) -> set[str]:
    """Return the names that the class uses from outside of it."""
    (found, *_) = [table for table in _tables(module) if table.get_type() == "class" and table.get_name() == name]
    return {
        symbol.get_name()
        for table in _tables(found)
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (symbol.is_global() or (table is found and not symbol.is_local()))
    } - _IMPLICIT


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)
