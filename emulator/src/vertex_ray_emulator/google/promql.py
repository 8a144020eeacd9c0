"""PromQL over the stored series: the part of the language that questions about clusters are asked in.

The package ``promql-parser`` parses it and checks the types; it is evaluated here. What is parsed and not evaluated
(subqueries, ``@``, many-to-one matching, most functions) is refused by name.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import promql_parser as ast

from vertex_ray_emulator.google.metrics_store import MetricsStore, Series

Vector = list[tuple[dict[str, str], float]]
Value = float | Vector
Step = Callable[[float], Value]
Samples = list[tuple[float, float]]

_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else (math.nan if not a or math.isnan(a) else math.copysign(math.inf, a)),
    "%": lambda a, b: math.fmod(a, b) if b else math.nan,
    "^": lambda a, b: _power(a, b),
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le,
}  # fmt: skip
_SETS = ("and", "or", "unless")
_AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "avg": lambda values: math.fsum(values) / len(values),
    "min": min,
    "max": max,
    "count": lambda values: float(len(values)),
    "group": lambda values: 1.0,
}
_OVER_TIME: dict[str, Callable[[Samples], float]] = {
    "avg_over_time": lambda found: math.fsum(v for _, v in found) / len(found),
    "max_over_time": lambda found: max(v for _, v in found),
    "min_over_time": lambda found: min(v for _, v in found),
    "sum_over_time": lambda found: math.fsum(v for _, v in found),
    "count_over_time": lambda found: float(len(found)),
    "last_over_time": lambda found: found[-1][1],
    "present_over_time": lambda found: 1.0,
}
_EACH: dict[str, Callable[[float], float]] = {"abs": abs, "ceil": math.ceil, "floor": math.floor}


class PromQlError(ValueError):
    """A query that can not be read, or not be evaluated; the text says why."""


@dataclass(frozen=True)
class Query:
    """A query that is ready to be evaluated, any number of times.

    :param step: Its value at a time.
    :param ranged: Of a range selector alone: its samples at a time, in place of a value.
    """

    step: Step
    ranged: Callable[[float], list[tuple[dict[str, str], Samples]]] | None = None


def compile_query(text: str, store: MetricsStore) -> Query:
    """Prepare a query; it sees the series that there are now.

    :raises PromQlError: for what is no PromQL, or goes beyond what is evaluated here.
    """
    try:
        tree = ast.parse(text)
    except ValueError as error:
        raise PromQlError(f"invalid parameter 'query': {error}") from error
    compiler = _Compiler(store)
    if isinstance(tree, ast.MatrixSelector):
        return Query(lambda at: [], compiler.matrix(tree))
    return Query(compiler.compile(tree))


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
        if isinstance(tree, ast.UnaryExpr):
            inner = self.compile(tree.expr)
            return lambda at: _map(inner(at), lambda value: -value)
        if isinstance(tree, ast.VectorSelector):
            return self._selector(tree)
        if isinstance(tree, ast.Call):
            return self._call(tree)
        if isinstance(tree, ast.AggregateExpr):
            return self._aggregate(tree)
        if isinstance(tree, ast.BinaryExpr):
            return self._binary(tree)
        raise _unsupported(type(tree).__name__.removesuffix("Expr"))

    def _series(self, tree: Any) -> tuple[list[tuple[dict[str, str], Series]], float]:
        """The series of a selector, and by how many seconds it looks back."""
        if tree.at is not None:
            raise _unsupported("the @ modifier")
        if tree.matchers.or_matchers:
            raise _unsupported("or between matchers")
        tests = [_matcher(each) for each in tree.matchers.matchers]
        found = self._store.select(tree.name, lambda labels: all(test(labels) for test in tests))
        return found, tree.offset.total_seconds() if tree.offset is not None else 0.0

    def _selector(self, tree: Any) -> Step:
        found, offset = self._series(tree)

        def step(at: float) -> Value:
            values = ((labels, series.at(at - offset)) for labels, series in found)
            return [(labels, value) for labels, value in values if value is not None]

        return step

    def matrix(self, tree: Any) -> Callable[[float], list[tuple[dict[str, str], Samples]]]:
        if not isinstance(tree, ast.MatrixSelector):
            raise _unsupported("a range of anything but a selector (a subquery)")
        found, offset = self._series(tree.vector_selector)
        seconds = tree.range.total_seconds()

        def step(at: float) -> list[tuple[dict[str, str], Samples]]:
            end = at - offset
            ranges = ((labels, series.within(end - seconds, end)) for labels, series in found)
            return [(labels, samples) for labels, samples in ranges if samples]

        return step

    def _call(self, tree: Any) -> Step:
        name, arguments = tree.func.name, list(tree.args)
        if name in _OVER_TIME:
            reduce, matrix = _OVER_TIME[name], self.matrix(arguments[0])
            keep = name == "last_over_time"
            return lambda at: [
                (labels if keep else _nameless(labels), reduce(samples)) for labels, samples in matrix(at)
            ]
        if name in ("rate", "increase", "delta"):
            matrix, seconds = self.matrix(arguments[0]), arguments[0].range.total_seconds()
            offset = arguments[0].vector_selector.offset
            back = offset.total_seconds() if offset is not None else 0.0

            def step(at: float) -> Value:
                found = ((_nameless(labels), _growth(s, at - back, seconds, name)) for labels, s in matrix(at))
                return [(labels, value) for labels, value in found if value is not None]

            return step
        if name == "time":
            return lambda at: at
        inner = self.compile(arguments[0]) if arguments else None
        if inner is None or len(arguments) != 1:
            raise _unsupported(f"the function {name}")
        if name in _EACH:
            each = _EACH[name]
            return lambda at: _map(inner(at), lambda value: float(each(value)) if math.isfinite(value) else value)
        if name == "vector":
            return lambda at: [({}, _scalar(inner(at)))]
        if name == "scalar":
            return lambda at: _only(inner(at))
        if name == "absent":
            return lambda at: [] if inner(at) else [({}, 1.0)]
        raise _unsupported(f"the function {name}")

    def _aggregate(self, tree: Any) -> Step:
        name = str(tree.op)
        if name not in _AGGREGATIONS:
            raise _unsupported(f"the aggregation {name}")
        reduce, inner = _AGGREGATIONS[name], self.compile(tree.expr)
        names = set(tree.modifier.labels) if tree.modifier is not None else set()
        without = tree.modifier is not None and tree.modifier.type == ast.AggModifierType.Without

        def group(labels: Mapping[str, str]) -> dict[str, str]:
            if without:
                return {k: v for k, v in labels.items() if k not in names and k != "__name__"}
            return {k: v for k, v in labels.items() if k in names}

        def step(at: float) -> Value:
            groups: dict[tuple[tuple[str, str], ...], list[float]] = {}
            for labels, value in _vector(inner(at)):
                groups.setdefault(_key(group(labels)), []).append(value)
            return [(dict(key), reduce(values)) for key, values in groups.items()]

        return step

    def _binary(self, tree: Any) -> Step:
        name = str(tree.op)
        left, right, modifier = self.compile(tree.lhs), self.compile(tree.rhs), tree.modifier
        many = (ast.VectorMatchCardinality.ManyToOne, ast.VectorMatchCardinality.OneToMany)
        if modifier is not None and modifier.card in many:
            raise _unsupported("group_left and group_right")
        matching = modifier.matching if modifier is not None else None
        labels = set(matching.labels) if matching is not None else set()
        on = matching is not None and matching.type == ast.LabelModifierType.Include

        def signature(found: Mapping[str, str]) -> dict[str, str]:
            return {k: v for k, v in found.items() if (k in labels) == on and (on or k != "__name__")}

        if name in _SETS:
            return lambda at: _combine(name, _vector(left(at)), _vector(right(at)), signature)
        apply = _operation(name, truth=modifier is not None and modifier.return_bool)
        # A comparison that only filters leaves a series its name.
        filters = name in _COMPARISONS and not (modifier is not None and modifier.return_bool)

        def step(at: float) -> Value:
            a, b = left(at), right(at)
            if isinstance(a, float | int) and isinstance(b, float | int):
                return float(apply(a, b, scalars=True) or 0.0)
            if isinstance(a, list) and isinstance(b, list):
                return _match(a, b, apply, signature, on=on, names=labels, keep_name=filters)
            result: Vector = []
            for found, value in _vector(a if isinstance(a, list) else b):
                one, two = (value, _scalar(b)) if isinstance(a, list) else (_scalar(a), value)
                made = apply(one, two)
                if made is not None:
                    result.append((found, value) if filters else (_nameless(found), made))
            return result

        return step


def _operation(name: str, *, truth: bool) -> Callable[..., float | None]:
    """An operator on two numbers; None for a comparison that does not hold and filters."""
    if name in _ARITHMETIC:
        return lambda a, b, scalars=False: _ARITHMETIC[name](a, b)
    if name not in _COMPARISONS:
        raise _unsupported(f"the operator {name}")
    holds = _COMPARISONS[name]
    return lambda a, b, scalars=False: float(holds(a, b)) if truth or scalars else (a if holds(a, b) else None)


def _match(
    a: Vector,
    b: Vector,
    apply: Callable[..., float | None],
    signature: Callable[[Mapping[str, str]], dict[str, str]],
    *,
    on: bool,
    names: set[str],
    keep_name: bool,
) -> Vector:
    """One to one: each series with the one of the same labels."""
    others: dict[Any, float] = {}
    for labels, value in b:
        key = _key(signature(labels))
        if key in others:
            raise PromQlError(f"found duplicate series for the match group {dict(key)} on the right hand-side")
        others[key] = value
    result: Vector = []
    used: set[Any] = set()
    for labels, value in a:
        key = _key(signature(labels))
        if key not in others:
            continue
        made = apply(value, others[key])
        if key in used:
            raise PromQlError(f"found duplicate series for the match group {dict(key)} on the left hand-side")
        used.add(key)
        if made is not None:
            kept = {k: v for k, v in labels.items() if (k in names) == on or (k == "__name__" and not on)}
            result.append((kept if keep_name else _nameless(kept), made))
    return result


def _combine(name: str, a: Vector, b: Vector, signature: Callable[[Mapping[str, str]], dict[str, str]]) -> Vector:
    ours, theirs = ({_key(signature(labels)) for labels, _ in each} for each in (a, b))
    if name == "or":
        return [*a, *(each for each in b if _key(signature(each[0])) not in ours)]
    return [each for each in a if (_key(signature(each[0])) in theirs) == (name == "and")]


def _growth(samples: Samples, end: float, seconds: float, name: str) -> float | None:
    """``rate``, ``increase`` and ``delta``: extrapolated to the whole range as Prometheus does it."""
    if len(samples) < 2:
        return None
    (first, begin_value), (last, end_value) = samples[0], samples[-1]
    growth = end_value - begin_value
    counter = name != "delta"
    if counter:
        # A counter that has gone down was reset to 0 in between.
        growth += math.fsum(v for (_, v), (_, after) in itertools.pairwise(samples) if after < v)
    sampled = last - first
    average = sampled / (len(samples) - 1)
    before, after = first - (end - seconds), end - last
    if counter and growth > 0 and begin_value >= 0:
        # A counter does not begin below 0.
        before = min(before, sampled * (begin_value / growth))
    if before >= average * 1.1:
        before = average / 2
    if after >= average * 1.1:
        after = average / 2
    growth *= (sampled + before + after) / sampled
    return growth / seconds if name == "rate" else growth


def _matcher(each: Any) -> Callable[[Mapping[str, str]], bool]:
    name, wanted = each.name, each.value
    if each.op in (ast.MatchOp.Equal, ast.MatchOp.NotEqual):
        same = each.op == ast.MatchOp.Equal
        return lambda labels: (labels.get(name, "") == wanted) == same
    try:
        pattern = re.compile(wanted, re.DOTALL)
    except re.error as error:
        raise PromQlError(f"error parsing regexp {wanted!r}: {error}") from error
    fits = each.op == ast.MatchOp.Re
    return lambda labels: (pattern.fullmatch(labels.get(name, "")) is not None) == fits


def _unsupported(what: str) -> PromQlError:
    return PromQlError(f"the emulator does not evaluate {what}")


def _power(a: float, b: float) -> float:
    try:
        return math.pow(a, b)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan


def _nameless(labels: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in labels.items() if k != "__name__"}


def _key(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _map(value: Value, change: Callable[[float], float]) -> Value:
    if isinstance(value, list):
        return [(_nameless(labels), change(number)) for labels, number in value]
    return change(value)


def _vector(value: Value) -> Vector:
    return value if isinstance(value, list) else [({}, value)]


def _scalar(value: Value) -> float:
    return _only(value) if isinstance(value, list) else value


def _only(value: Value) -> float:
    """What ``scalar()`` gives: the value of the only element, or not a number."""
    found = _vector(value)
    return found[0][1] if len(found) == 1 else math.nan
