"""Evaluate PromQL over the stored series: the part of the language that queries about clusters need.

The package ``promql-parser`` parses a query and checks its types. Supported are selectors with label matchers, a range
selector as a whole query, the functions ``avg_over_time``, ``max_over_time``, ``min_over_time`` and ``vector``, the
aggregations ``avg``, ``count``, ``max``, ``min`` and ``sum`` with ``by`` and ``without``, the operators ``+ - * /``,
comparisons that filter, and ``or``. Anything else is rejected with an error that names it.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import promql_parser as ast

from vertex_ray_emulator.google.metrics_store import MetricsStore, Series

Labels = dict[str, str]
Vector = list[tuple[Labels, float]]
Value = float | Vector
Step = Callable[[float], Value]
Samples = list[tuple[float, float]]
Key = tuple[tuple[str, str], ...]

MAX_QUERY = 10_000
MAX_BRACKETS = 500
_STRINGS = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`")
_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else (math.nan if not a or math.isnan(a) else math.copysign(math.inf, a)),
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le,
}  # fmt: skip
_AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "avg": lambda values: math.fsum(values) / len(values),
    "count": lambda values: float(len(values)),
    "max": max,
    "min": min,
    "sum": math.fsum,
}
_OVER_TIME = {f"{name}_over_time": _AGGREGATIONS[name] for name in ("avg", "max", "min")}


class PromQlError(ValueError):
    """A query is not valid PromQL, or uses what the emulator does not support; the message says which."""


@dataclass(frozen=True)
class Query:
    """A query that can be evaluated any number of times.

    :param step: returns the query's value at a time.
    :param ranged: for a range selector alone, returns its samples at a time; ``step`` is not used then.
    """

    step: Step
    ranged: Callable[[float], list[tuple[Labels, Samples]]] | None = None


def compile_query(text: str, store: MetricsStore) -> Query:
    """Prepare a query over the series that exist now.

    :raises PromQlError: if the text is not PromQL, or uses what the emulator does not support.
    """
    # The parser recurses in native code, where a query that is nested too deeply ends the process.
    bare = _STRINGS.sub("", text)
    if len(bare) > MAX_QUERY:
        raise PromQlError(f"invalid parameter 'query': the emulator accepts {MAX_QUERY} characters besides strings")
    if bare.count("(") > MAX_BRACKETS:
        raise PromQlError("invalid parameter 'query': the query is nested too deeply")
    try:
        tree = ast.parse(text)
    except ValueError as error:
        raise PromQlError(f"invalid parameter 'query': {error}") from error
    compiler = _Compiler(store)
    if isinstance(tree, ast.MatrixSelector):
        return Query(lambda at: [], compiler.matrix(tree))
    try:
        return Query(compiler.compile(tree))
    except RecursionError:
        raise PromQlError("invalid parameter 'query': the query is nested too deeply") from None


class _Compiler:
    """Turns a syntax tree into functions of the time."""

    def __init__(self, store: MetricsStore) -> None:
        self._store = store

    def compile(self, tree: Any) -> Step:
        if isinstance(tree, ast.NumberLiteral):
            number = tree.val
            return lambda at: number
        if isinstance(tree, ast.ParenExpr):
            return self.compile(tree.expr)
        if isinstance(tree, ast.VectorSelector):
            return self._selector(tree)
        if isinstance(tree, ast.Call):
            return self._call(tree)
        if isinstance(tree, ast.AggregateExpr):
            return self._aggregate(tree)
        if isinstance(tree, ast.BinaryExpr):
            return self._binary(tree)
        raise _unsupported(f"{type(tree).__name__.removesuffix('Expr').lower()} expressions")

    def matrix(self, tree: Any) -> Callable[[float], list[tuple[Labels, Samples]]]:
        if not isinstance(tree, ast.MatrixSelector):
            raise _unsupported("subqueries")
        found = self._series(tree.vector_selector)
        seconds = tree.range.total_seconds()

        def step(at: float) -> list[tuple[Labels, Samples]]:
            ranges = ((labels, series.within(at - seconds, at)) for labels, series in found)
            return [(labels, samples) for labels, samples in ranges if samples]

        return step

    def _series(self, tree: Any) -> list[tuple[Labels, Series]]:
        if tree.at is not None:
            raise _unsupported("the @ modifier")
        if tree.offset is not None:
            raise _unsupported("the offset modifier")
        if tree.matchers.or_matchers:
            raise _unsupported("or between matchers")
        tests = [_matcher(each) for each in tree.matchers.matchers]
        return self._store.select(tree.name, lambda labels: all(test(labels) for test in tests))

    def _selector(self, tree: Any) -> Step:
        found = self._series(tree)

        def step(at: float) -> Value:
            values = ((labels, series.at(at)) for labels, series in found)
            return [(labels, value) for labels, value in values if value is not None]

        return step

    def _call(self, tree: Any) -> Step:
        name = tree.func.name
        if name == "vector":
            number = self.compile(tree.args[0])
            return lambda at: _vector(number(at))
        if name not in _OVER_TIME:
            raise _unsupported(f"the function {name}")
        reduce, matrix = _OVER_TIME[name], self.matrix(tree.args[0])
        return lambda at: [(_nameless(labels), reduce([value for _, value in found])) for labels, found in matrix(at)]

    def _aggregate(self, tree: Any) -> Step:
        name = str(tree.op)
        if name not in _AGGREGATIONS:
            raise _unsupported(f"the aggregation {name}")
        reduce, inner = _AGGREGATIONS[name], self.compile(tree.expr)
        names = set(tree.modifier.labels) if tree.modifier is not None else set()
        without = tree.modifier is not None and tree.modifier.type == ast.AggModifierType.Without

        def step(at: float) -> Value:
            groups: dict[Key, list[float]] = {}
            for labels, value in _vector(inner(at)):
                kept = {k: v for k, v in _nameless(labels).items() if (k in names) != without}
                groups.setdefault(_key(kept), []).append(value)
            return [(dict(key), reduce(values)) for key, values in groups.items()]

        return step

    def _binary(self, tree: Any) -> Step:
        name, modifier = str(tree.op), tree.modifier
        if modifier is not None and modifier.return_bool:
            raise _unsupported("the bool modifier")
        many = (ast.VectorMatchCardinality.ManyToOne, ast.VectorMatchCardinality.OneToMany)
        if modifier is not None and (modifier.matching is not None or modifier.card in many):
            raise _unsupported("on, ignoring, group_left and group_right")
        left, right = self.compile(tree.lhs), self.compile(tree.rhs)
        if name == "or":
            return lambda at: _union(_vector(left(at)), _vector(right(at)))
        if name in _COMPARISONS:
            return lambda at: _filter(left(at), right(at), _COMPARISONS[name])
        if name in _ARITHMETIC:
            return lambda at: _calculate(left(at), right(at), _ARITHMETIC[name])
        raise _unsupported(f"the operator {name}")


def _calculate(a: Value, b: Value, apply: Callable[[float, float], float]) -> Value:
    if isinstance(a, list) or isinstance(b, list):
        return [(_nameless(labels), apply(x, y)) for labels, x, y in _pairs(a, b)]
    return apply(a, b)


def _filter(a: Value, b: Value, holds: Callable[[float, float], bool]) -> Vector:
    """Keep the elements of the vector, or of the left one, for which the comparison holds."""
    return [(labels, x if isinstance(a, list) else y) for labels, x, y in _pairs(a, b) if holds(x, y)]


def _pairs(a: Value, b: Value) -> Iterator[tuple[Labels, float, float]]:
    """Yield the numbers on both sides of an operator with the labels of the left or only vector."""
    if isinstance(a, list):
        if isinstance(b, list):
            left, right = _by_labels(a, "left"), _by_labels(b, "right")
            yield from ((labels, value, right[key][1]) for key, (labels, value) in left.items() if key in right)
        else:
            yield from ((labels, value, b) for labels, value in a)
    elif isinstance(b, list):
        yield from ((labels, a, value) for labels, value in b)


def _by_labels(vector: Vector, side: str) -> dict[Key, tuple[Labels, float]]:
    found: dict[Key, tuple[Labels, float]] = {}
    for labels, value in vector:
        key = _key(_nameless(labels))
        if key in found:
            raise PromQlError(f"found duplicate series for the match group {dict(key)} on the {side} hand-side")
        found[key] = labels, value
    return found


def _union(a: Vector, b: Vector) -> Vector:
    ours = {_key(_nameless(labels)) for labels, _ in a}
    return [*a, *(each for each in b if _key(_nameless(each[0])) not in ours)]


def _matcher(each: Any) -> Callable[[Mapping[str, str]], bool]:
    name, wanted = each.name, each.value
    if each.op in (ast.MatchOp.Equal, ast.MatchOp.NotEqual):
        same = each.op == ast.MatchOp.Equal
        return lambda labels: (labels.get(name, "") == wanted) == same
    try:
        pattern = re.compile(wanted, re.DOTALL)
    except re.error as error:
        raise PromQlError(f"error parsing regexp {wanted!r}: {error}") from error
    matches = each.op == ast.MatchOp.Re
    return lambda labels: (pattern.fullmatch(labels.get(name, "")) is not None) == matches


def _unsupported(what: str) -> PromQlError:
    return PromQlError(f"the emulator does not support {what} in PromQL")


def _nameless(labels: Mapping[str, str]) -> Labels:
    return {k: v for k, v in labels.items() if k != "__name__"}


def _key(labels: Mapping[str, str]) -> Key:
    return tuple(sorted(labels.items()))


def _vector(value: Value) -> Vector:
    """Return a vector; a number becomes the only element, without labels."""
    return value if isinstance(value, list) else [({}, value)]
