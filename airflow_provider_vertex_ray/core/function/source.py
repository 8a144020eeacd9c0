"""Source of a function that is sent to a cluster, and the check that it needs nothing that is not sent."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import logging
import re
import symtable
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.remote.runner import ANNOTATIONS, parse
from airflow_provider_vertex_ray.remote.values import NotPlainError, encode

__all__ = ["ALWAYS_DEFINED", "CONSTANT", "FunctionSource", "check_own_name", "function_source", "not_plain_rule"]

CONSTANT = re.compile(r"_{0,2}[A-Z][A-Z0-9_]*")
"""Names outside of the function whose values are sent with it."""

ALWAYS_DEFINED = {"__name__", "__builtins__", "__debug__"}
"""Names that every module defines."""


@dataclass(frozen=True)
class FunctionSource:
    """The parts of a function that are sent to the cluster.

    :param name: name of the function
    :param filename: file in which it is defined
    :param first_line: number of its first line in the file, including decorators
    :param source: its lines, as they are in the file
    :param future_annotations: whether the file has ``from __future__ import annotations``
    :param kept_decorators: number of decorators, counted from the ``def`` upwards, that are applied on the cluster
    :param imports: imports of these decorators: (name, module, attribute or an empty string)
    :param defaults: default values of the parameters, as they are sent
    :param constants: names outside of the function whose values are sent
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
        """Return the function's part of the payload of ``remote.runner``, with the current values of its constants.

        :raises InvalidArgumentError: a constant cannot, or can no longer, be sent
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
    """Read the source of a function, and validate that it needs nothing but its arguments.

    :param function: the argument of this package's decorator: the function, possibly wrapped by decorators below it
    :param is_ours: tells whether an object is this package's decorator
    :raises InvalidArgumentError: the function cannot be sent; the error names the function, the line, the name and the
        rule
    """
    inner = _inner(function)
    source, first_line, definition = _definition(inner)
    kept = _kept_decorators(function, inner, definition, is_ours)
    imports = tuple(found for expression in kept for found in _imports_of(expression, inner))
    free = _free_names(inner, source, definition)
    scope = _scope(inner)
    constants = []
    # In an order that is the same in every process, because it affects the payload's hash.
    for name, line in sorted(free.items(), key=lambda item: (item[1], item[0])):
        if name == definition.name or name in ALWAYS_DEFINED or (name not in scope and hasattr(builtins, name)):
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


def check_own_name(function: Any) -> None:
    """Validate that a function does not mean another one by its own name; called before the name is bound to the task.

    :param function: the argument of this package's decorator
    :raises InvalidArgumentError: the function calls what its own name stood for before it was defined
    """
    inner = _inner(function)
    name = inner.__name__
    if name not in _called_names(inner):
        return
    before = inner.__globals__.get(name, getattr(builtins, name, None))
    # A DAG file that is loaded again finds its own task there.
    module = getattr(before, "__module__", None) or getattr(before, "__name__", None)
    if before is not None and callable(before) and module != inner.__module__ and not _is_task(before):
        raise _refused(
            inner,
            inner.__code__.co_firstlineno,
            name,
            f"The name means this function itself here. Import the other {name} inside the function under another "
            "name, or rename the function.",
        )


def _called_names(inner: FunctionType) -> set[str]:
    """Return the names from outside of the function that its code uses."""
    found, codes = set(), [inner.__code__]
    while codes:
        code = codes.pop()
        found |= set(code.co_names) | set(code.co_freevars)
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
    # An attribute counts only if the name is loaded itself; the source tells them apart.
    _, _, definition = _definition(inner)
    loaded = {node.id for node in ast.walk(definition) if isinstance(node, ast.Name)}
    return found & loaded


def _is_task(value: Any) -> bool:
    return (type(value).__module__ or "").partition(".")[0] == "airflow"


def _refused(function: Any, line: int, value: object, rule: str) -> InvalidArgumentError:
    name = getattr(function, "__qualname__", None) or f"of type {type(function).__name__}"
    code = getattr(function, "__code__", None)
    where = f", {code.co_filename}:{line}" if isinstance(code, CodeType) else ""
    return InvalidArgumentError(f"@task.vertex_ray {name}{where}", value, rule)


def _plain(value: Any, path: str, function: Any, line: int) -> Any:
    try:
        return encode(value, path, exact=True)
    except NotPlainError as error:
        raise _refused(function, line, path, not_plain_rule(error)) from None


def not_plain_rule(error: NotPlainError) -> str:
    """Return the rule of an InvalidArgumentError for a value that cannot be sent."""
    return str(error)


def _inner(function: Any) -> FunctionType:
    """Return the original function, below decorators that use ``functools.wraps``.

    :raises InvalidArgumentError: it is not a plain function that is written with ``def``
    """
    if inspect.ismethod(function):
        raise _refused(function, 0, function.__name__, "Use a function; the object of a method is not sent.")
    if isinstance(function, functools.partial):
        name = getattr(function.func, "__name__", "the function")
        rule = f"Decorate {name} itself, and pass the arguments when the task is called or with .partial() of the task."
        raise _refused(function.func, 0, "functools.partial", rule)
    found = inspect.unwrap(function)
    if not isinstance(found, FunctionType):
        raise _refused(function, 0, function, "Use a function that is defined with def.")
    line = found.__code__.co_firstlineno
    if found.__name__ == "<lambda>" or found.__code__.co_name == "<lambda>":
        raise _refused(found, line, "lambda", "Use a function that is defined with def.")
    if inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found):
        raise _refused(found, line, "async def", "Define the function with def, and call asyncio.run inside it.")
    if inspect.isgeneratorfunction(found):
        raise _refused(found, line, "yield", "Return a list; a generator does not return a result.")
    return found


def _definition(inner: FunctionType) -> tuple[str, int, ast.FunctionDef]:
    """Return the source of the function, the number of its first line, and its definition."""
    code = inner.__code__
    try:
        lines, first_line = inspect.getsourcelines(inner)
        definition = parse("".join(lines), code.co_filename, first_line)
    except (OSError, TypeError) as error:
        raise _refused(
            inner, code.co_firstlineno, code.co_name, f"Define it in a file; its source cannot be read ({error})."
        ) from error
    except SyntaxError as error:
        raise _refused(
            inner, code.co_firstlineno, code.co_name, f"Its file has no function at this line: {error}."
        ) from error
    if not isinstance(definition, ast.FunctionDef) or definition.name != code.co_name:
        raise _refused(
            inner,
            code.co_firstlineno,
            code.co_name,
            "The file has changed since it was loaded, and has another definition at this line.",
        )
    return "".join(lines), first_line, definition


def _scope(inner: FunctionType) -> dict[str, Any]:
    """Return the names that the function can use from outside: those of its module and of the functions around it."""
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
    """Return the decorators below ours if they wrapped the function; those above it concern Airflow only."""
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
        "Write @task.vertex_ray(...) above the function and its other decorators below it; the function is wrapped, "
        "and the decorators that wrapped it cannot be determined.",
    )


def _value_of(expression: ast.expr, scope: dict[str, Any]) -> Any:
    """Return the value of a name, or of a name with attributes; None for any other expression."""
    if isinstance(expression, ast.Name):
        return scope.get(expression.id)
    if isinstance(expression, ast.Attribute):
        return getattr(_value_of(expression.value, scope), expression.attr, None)
    return None


def _imports_of(expression: ast.expr, inner: FunctionType) -> Iterator[tuple[str, str, str]]:
    """Yield the imports that a decorator's expression needs on the cluster.

    :raises InvalidArgumentError: a name does not come from an installed module, so it cannot be imported there
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
                "Put the decorator above @task.vertex_ray, or use it inside the function; below, it is applied on the "
                f"cluster, where {node.id!r} cannot be imported.",
            )
        yield node.id, module, attribute


def _importable(module: str, attribute: str, value: Any, inner: FunctionType) -> bool:
    if module in ("", "__main__", inner.__module__) or module.partition(".")[0] in ("airflow", "builtins"):
        return False
    found: Any = sys.modules.get(module)
    # The cluster does not have the modules of the DAGs folder, but they cannot be recognised here.
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part, None)
    return found is value


# --- names ----------------------------------------------------------------------------------------------------------


def _free_names(inner: FunctionType, source: str, definition: ast.FunctionDef) -> dict[str, int]:
    """Return the names that the function's body uses from outside, each with the line of its first use."""
    future = "from __future__ import annotations\n" if inner.__code__.co_flags & ANNOTATIONS else ""
    names = set(inner.__code__.co_freevars)
    # With "nonlocal", the text alone is not valid Python.
    if not any(isinstance(node, ast.Nonlocal) and names & set(node.names) for node in ast.walk(definition)):
        text = future + ("if 1:\n" if source[:1] in " \t" else "") + source
        (table, *_) = _functions(symtable.symtable(text, inner.__code__.co_filename, "exec"), definition.name)
        symbols = [symbol for each in _tables(table) for symbol in each.get_symbols() if symbol.is_global()]
        # What the function assigns with "global" may be read before that, if the module has it.
        scope = _scope(inner)
        bound = {
            symbol.get_name()
            for symbol in symbols
            if symbol.is_imported() or (symbol.is_assigned() and symbol.get_name() not in scope)
        }
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
    """Yield all nodes of the annotations that Python never evaluates: those of a function's own variables."""
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
    """Return the rule for a name from outside of the function."""
    only = "only the function itself is sent"
    if name not in scope:
        if name in inner.__code__.co_freevars:
            return f"Pass the value as an argument; {only}, not the functions around it."
        return "Define the name; it does not exist."
    value = scope[name]
    if isinstance(value, logging.Logger):
        return (
            f"Make the logger inside the function (import logging; {name} = logging.getLogger({value.name!r})); {only}."
        )
    if isinstance(value, functools.partial):
        inside = getattr(value.func, "__name__", "the function")
        return f"Make it inside the function, where {inside} must be imported or defined too; {only}."
    if isinstance(value, ModuleType):
        short = value.__name__ == name or value.__name__.partition(".")[0] == name
        return f"Import it inside the function (import {value.__name__}{'' if short else f' as {name}'}); {only}."
    module = getattr(value, "__module__", None)
    if module and module != inner.__module__ and getattr(value, "__name__", None):
        renamed = "" if value.__name__ == name else f" as {name}"
        return f"Import it inside the function (from {module} import {value.__name__}{renamed}); {only}."
    if callable(value):
        hint = " A decorator below @task.vertex_ray must use functools.wraps." if inner.__closure__ else ""
        return (
            "Define it inside the function, or import it there from a module in working_dir or py_modules; "
            f"{only}.{hint}"
        )
    return f"Pass the value as an argument, or make it a constant in UPPER_CASE; {only}."
