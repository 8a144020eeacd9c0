"""A function as text that runs elsewhere: where its source is, and whether it needs anything that does not travel."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import symtable
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.remote.runner import ANNOTATIONS, NotPlainError, parse, plain

__all__ = ["FunctionSource", "function_source"]

CONSTANT = re.compile(r"_{0,2}[A-Z][A-Z0-9_]*")
"""Names outside of the function whose values travel with it."""

ALWAYS_THERE = {"__name__", "__builtins__", "__debug__"}


@dataclass(frozen=True)
class FunctionSource:
    """What travels of a function.

    :param name: Its name.
    :param filename: The file that it is defined in.
    :param first_line: The number of its first line there, decorators included.
    :param source: Its lines, as they are in the file.
    :param future_annotations: Whether the file has ``from __future__ import annotations``.
    :param kept_decorators: How many decorators, counted from the ``def`` upwards, are applied on the cluster.
    :param imports: What these decorators need: (name, module, attribute or an empty text).
    :param defaults: The parameters' default values, as JSON.
    :param constants: Names outside of the function whose values travel.
    """

    name: str
    filename: str
    first_line: int
    source: str
    future_annotations: bool
    kept_decorators: int
    imports: tuple[tuple[str, str, str], ...]
    defaults: dict[str, Any]
    constants: tuple[str, ...]

    def payload(self, function: Callable[..., Any]) -> dict[str, Any]:
        """The part of ``remote.runner``'s payload that tells the function, with its constants' values of now.

        :raises InvalidArgumentError: A constant is no JSON (any more).
        """
        inner = _inner(function)
        scope = _scope(inner)
        return {
            "filename": self.filename,
            "first_line": self.first_line,
            "source": self.source,
            "future_annotations": self.future_annotations,
            "kept_decorators": self.kept_decorators,
            "imports": [list(each) for each in self.imports],
            "defaults": self.defaults,
            "constants": {name: _plain(scope[name], name, inner, self.first_line) for name in self.constants},
        }


def function_source(function: Callable[..., Any], is_ours: Callable[[Any], bool]) -> FunctionSource:
    """Read a function's source and check that it can run where there is nothing but its arguments.

    :param function: What our decorator was given: the function, or what the decorators below ours made of it.
    :param is_ours: Tells our decorator from others, by value.
    :raises InvalidArgumentError: It is no function that can travel; names the function, the line, the name and the rule.
    """
    inner = _inner(function)
    source, first_line, definition = _definition(inner)
    kept = _kept_decorators(function, inner, definition, is_ours)
    imports = tuple(found for expression in kept for found in _imports_of(expression, inner))
    free = _free_names(inner, source, definition)
    scope = _scope(inner)
    constants = []
    # In an order that does not change from process to process: the payload's hash is over it.
    for name, line in sorted(free.items(), key=lambda item: (item[1], item[0])):
        if name == definition.name or name in ALWAYS_THERE or (name not in scope and hasattr(builtins, name)):
            continue
        if name in scope and CONSTANT.fullmatch(name) and not isinstance(scope[name], (ModuleType, type)):
            _plain(scope[name], name, inner, line)
            constants.append(name)
            continue
        raise _refused(inner, line, name, _rule(name, scope, inner))
    return FunctionSource(
        name=definition.name,
        filename=inner.__code__.co_filename,
        first_line=first_line,
        source=source,
        future_annotations=bool(inner.__code__.co_flags & ANNOTATIONS),
        kept_decorators=len(kept),
        imports=imports,
        defaults={
            name: _plain(parameter.default, f"the default of {name}", inner, definition.lineno)
            for name, parameter in inspect.signature(inner).parameters.items()
            if parameter.default is not parameter.empty
        },
        constants=tuple(constants),
    )


def _refused(function: Any, line: int, value: object, rule: str) -> InvalidArgumentError:
    name = getattr(function, "__qualname__", None) or repr(function)
    code = getattr(function, "__code__", None)
    where = f", {code.co_filename}:{line}" if isinstance(code, CodeType) else ""
    return InvalidArgumentError(f"@task.vertex_ray {name}{where}", value, rule)


def _plain(value: Any, path: str, function: Any, line: int) -> Any:
    try:
        return plain(value, path)
    except NotPlainError as error:
        raise _refused(function, line, path, str(error)) from None


def _inner(function: Any) -> FunctionType:
    """The function that was written, below what decorators with ``functools.wraps`` made of it.

    :raises InvalidArgumentError: There is none.
    """
    if inspect.ismethod(function):
        raise _refused(function, 0, function.__name__, "it is a method, and its object does not travel; use a function")
    found = inspect.unwrap(function)
    if not isinstance(found, FunctionType):
        raise _refused(function, 0, function, "only a function that is written with def can travel")
    line = found.__code__.co_firstlineno
    if found.__name__ == "<lambda>" or found.__code__.co_name == "<lambda>":
        raise _refused(found, line, "lambda", "only a function that is written with def can travel")
    if inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found):
        raise _refused(found, line, "async def", "write it with def, and call asyncio.run inside")
    if inspect.isgeneratorfunction(found):
        raise _refused(found, line, "yield", "a generator hands back no result; return a list")
    return found


def _definition(inner: FunctionType) -> tuple[str, int, ast.FunctionDef]:
    """The function's source, the number of its first line, and its definition."""
    code = inner.__code__
    try:
        lines, first_line = inspect.getsourcelines(inner)
        definition = parse("".join(lines), code.co_filename, first_line)
    except (OSError, TypeError) as error:
        raise _refused(
            inner, code.co_firstlineno, code.co_name, f"its source can not be read; define it in a file ({error})"
        ) from error
    except SyntaxError as error:
        raise _refused(
            inner, code.co_firstlineno, code.co_name, f"what is in its file at that line is no function: {error}"
        ) from error
    if not isinstance(definition, ast.FunctionDef) or definition.name != code.co_name:
        raise _refused(
            inner, code.co_firstlineno, code.co_name, "the file was changed since it was read: another def is there now"
        )
    return "".join(lines), first_line, definition


def _scope(inner: FunctionType) -> dict[str, Any]:
    """What names outside of the function mean to it: those of the functions around it, then those of its module."""
    around = {}
    for name, cell in zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True):
        try:
            around[name] = cell.cell_contents
        except ValueError:
            # Not assigned yet: it is defined below the decorated function.
            continue
    return {**inner.__globals__, **around}


# --- decorators -----------------------------------------------------------------------------------------------------


def _kept_decorators(
    function: Callable[..., Any], inner: FunctionType, definition: ast.FunctionDef, is_ours: Callable[[Any], bool]
) -> list[ast.expr]:
    """The decorators below ours, if they changed the function. Those above are Airflow's business."""
    if function is inner:
        return []
    scope = _scope(inner)
    for place, expression in enumerate(definition.decorator_list):
        head = expression.func if isinstance(expression, ast.Call) else expression
        if ast.unparse(head).endswith(".vertex_ray") or is_ours(_value_of(head, scope)):
            below = definition.decorator_list[place + 1 :]
            if below:
                return below
            break
    raise _refused(
        inner,
        definition.lineno,
        definition.name,
        "another function is wrapped around it, and which decorators belong to that can not be told; write "
        "@task.vertex_ray(...) above the function, and its other decorators below",
    )


def _value_of(expression: ast.expr, scope: dict[str, Any]) -> Any:
    """What a name, or a name with attributes, stands for; None for all else."""
    if isinstance(expression, ast.Name):
        return scope.get(expression.id)
    if isinstance(expression, ast.Attribute):
        return getattr(_value_of(expression.value, scope), expression.attr, None)
    return None


def _imports_of(expression: ast.expr, inner: FunctionType) -> Iterator[tuple[str, str, str]]:
    """How the cluster gets what a decorator's expression names.

    :raises InvalidArgumentError: It can not, as the name is none of an installed module.
    """
    scope = _scope(inner)
    for node in ast.walk(expression):
        if not isinstance(node, ast.Name):
            continue
        value = scope.get(node.id)
        if isinstance(value, ModuleType):
            module, attribute = value.__name__, ""
        elif node.id not in scope and hasattr(builtins, node.id):
            continue
        else:
            module, attribute = getattr(value, "__module__", None) or "", getattr(value, "__qualname__", "")
        if not _importable(module, attribute, value, inner):
            raise _refused(
                inner,
                expression.lineno,
                f"@{ast.unparse(expression)}",
                f"a decorator below @task.vertex_ray is applied on the cluster, where {node.id!r} can not be imported; "
                "put it above, or use it inside the function",
            )
        yield node.id, module, attribute


def _importable(module: str, attribute: str, value: Any, inner: FunctionType) -> bool:
    if module in ("", "__main__", inner.__module__) or module.partition(".")[0] in ("airflow", "builtins"):
        return False
    found: Any = sys.modules.get(module)
    # A module of the DAGs folder is none that the cluster has, but that can not be told from here.
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part, None)
    return found is value


# --- names ----------------------------------------------------------------------------------------------------------


def _free_names(inner: FunctionType, source: str, definition: ast.FunctionDef) -> dict[str, int]:
    """Names that the function's body takes from outside, each with the line where it does so first."""
    future = "from __future__ import annotations\n" if inner.__code__.co_flags & ANNOTATIONS else ""
    names = set(inner.__code__.co_freevars)
    # With "nonlocal", the text alone is none that Python takes.
    if not any(isinstance(node, ast.Nonlocal) and names & set(node.names) for node in ast.walk(definition)):
        text = future + ("if 1:\n" if source[:1] in " \t" else "") + source
        (table, *_) = _functions(symtable.symtable(text, inner.__code__.co_filename, "exec"), definition.name)
        symbols = [symbol for each in _tables(table) for symbol in each.get_symbols() if symbol.is_global()]
        bound = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
        names |= {symbol.get_name() for symbol in symbols if symbol.is_referenced()} - bound
    unused = set(_hints_of_locals(definition.body, in_class=False))
    lines: dict[str, int] = {}
    only_hints = set()
    for statement in definition.body:
        for node in ast.walk(statement):
            found = [node.id] if isinstance(node, ast.Name) else node.names if isinstance(node, ast.Nonlocal) else []
            for name in names.intersection(found):
                if node in unused:
                    only_hints.add(name)
                else:
                    lines[name] = min(lines.get(name, sys.maxsize), node.lineno)  # type: ignore[attr-defined]
    return {name: lines.get(name, definition.lineno) for name in names if name in lines or name not in only_hints}


def _hints_of_locals(statements: Iterable[ast.AST], in_class: bool) -> Iterator[ast.AST]:
    """All nodes of the hints that Python never evaluates: those of a function's own variables."""
    for node in statements:
        if isinstance(node, ast.AnnAssign) and not in_class:
            yield from ast.walk(node.annotation)
        scope = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda))
        yield from _hints_of_locals(ast.iter_child_nodes(node), isinstance(node, ast.ClassDef) if scope else in_class)


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _functions(table: symtable.SymbolTable, name: str) -> Iterator[symtable.SymbolTable]:
    for each in _tables(table):
        if each.get_type() == "function" and each.get_name() == name:
            yield each


def _rule(name: str, scope: dict[str, Any], inner: FunctionType) -> str:
    """What to do about a name from outside of the function."""
    only = "only the function itself travels"
    if name not in scope:
        if name in inner.__code__.co_freevars:
            return f"{only}, not the functions around it: pass the value as an argument"
        return "the name is defined nowhere"
    value = scope[name]
    if isinstance(value, ModuleType):
        short = value.__name__ == name or value.__name__.partition(".")[0] == name
        return f"{only}: import it inside the function (import {value.__name__}{'' if short else f' as {name}'})"
    module = getattr(value, "__module__", None)
    if module and module != inner.__module__ and getattr(value, "__name__", None):
        renamed = "" if value.__name__ == name else f" as {name}"
        return f"{only}: import it inside the function (from {module} import {value.__name__}{renamed})"
    if callable(value):
        hint = "; a decorator below @task.vertex_ray must use functools.wraps" if inner.__closure__ else ""
        return (
            f"{only}: define it inside the function, or import it there from a module that travels in working_dir "
            f"or py_modules{hint}"
        )
    return f"{only}: pass the value as an argument, or define it as a constant, in UPPER_CASE and of JSON values"
