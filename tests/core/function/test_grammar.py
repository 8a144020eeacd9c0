"""Functions by a grammar: each returns there exactly what it returns at home, or is refused with its line."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.function.source import function_source
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.remote.runner import answer, load
from airflow_provider_vertex_ray.remote.tracebacks import ResultError
from airflow_provider_vertex_ray.remote.values import decode, encode
from tests.core.function.test_values import same
from tests.support.modules import load_module

VALUES = st.sampled_from(
    [
        "1", "-2.5", "None", "True", "'text'", "'a\\n'", "b'x'", "()", "(1,)", "(1, (2, 'x'))", "[1, [2]]", "{1, 2}",
        "frozenset({1})", "{'a': (1,)}", "{1: 2}", "{(1, 2): 3}", "range(3)", "2**70", "1j", "float('nan')",
        "datetime.date(2024, 1, 1)", "datetime.datetime(2024, 1, 1, 12)", "datetime.timedelta(1)",
        "datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)", "decimal.Decimal('1.50')",
        "collections.deque([1], 3)", "collections.OrderedDict(a=1)", "collections.Counter('aab')", "POINT(1, 2)",
        "Mode.TRAIN", "Level.HIGH", "object()", "re.compile('x')", "pathlib.Path('/tmp')", "[object()]", "lambda: 1",
        "datetime", "logging.getLogger('x')", "functools.partial(int, '3')",
    ]
)  # fmt: skip
ATOMS = st.sampled_from(["A", "B", "x", "y", "lower", "1", "'z'", "len", "inner(x)", "[n for n in range(3)]"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: f"({two[0]}, {two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"[{two[0]}, {two[1]}]"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} if {two[1]} else None)"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} == {two[1]})"),
        inner.map(lambda one: f"{{'k': {one}}}"),
        inner.map(lambda one: f"type({one}).__name__"),
        inner.map(lambda one: f"[each for each in ({one},)]"),
        inner.map(lambda one: f"(lambda q: q)({one})"),
        inner.map(lambda one: f"repr({one})"),
        inner.map(lambda one: f"isinstance({one}, tuple)"),
    ),
    max_leaves=4,
)
STATEMENTS = st.sampled_from(
    [
        "pass",
        "x = (x, 1)",
        "import math; x = math.floor(2.5)",
        "for y in (1, 2): pass",
        "x: Unknown = x",
        "(w := x)",
        "text = '''\nat the margin'''; x = text",
        "try:\n        raise KeyError(1)\n    except KeyError as error:\n        x = error.args",
        "class Box:\n        size = (1, 2)\n    x = Box.size",
        "y = helper()",
        "from collections import OrderedDict; x = OrderedDict(a=1)['a']",
        "def deeper():\n        nonlocal x\n        x = 5\n    deeper()",
    ]
)
HEAD = """
import collections, datetime, decimal, enum, functools, logging, pathlib, re

class Mode(str, enum.Enum):
    TRAIN = "train"

class Level(enum.IntEnum):
    HIGH = 3

POINT = collections.namedtuple("POINT", "x y")

def helper():
    return 1
"""


def module_of(text: str, folder: Path) -> ModuleType:
    name = f"grammar_{uuid.uuid4().hex}"
    file = folder / f"{name}.py"
    file.write_text(text)
    return load_module(name, file)


def plain_enumerations(value: Any) -> Any:
    """Enumerations become their values; this is the one documented change."""
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(map(plain_enumerations, value))
    if type(value) is dict:
        return {key: plain_enumerations(item) for key, item in value.items()}
    return value.value if hasattr(value, "value") and hasattr(value, "name") else value


OUTCOMES: dict[str, int] = {"same": 0, "refused": 0, "no result": 0, "raises": 0}


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    constants=st.tuples(VALUES, VALUES),
    default=VALUES,
    argument=st.sampled_from(["1", "(1, 2)", "'a'", "{'k': (1,)}", "{1, 2}", "[(1,)]"]),
    statements=st.lists(STATEMENTS, max_size=3),
    expression=EXPRESSIONS,
    future=st.booleans(),
)
def test_function_returns_what_it_returns_at_home_or_is_refused(
    tmp_path: Path,
    constants: tuple[str, str],
    default: str,
    argument: str,
    statements: list[str],
    expression: str,
    future: bool,
) -> None:
    body = "\n    ".join([*statements, "def inner(n):\n        return (n,)", f"return {expression}"])
    text = (
        f"{HEAD}\nA = {constants[0]}\nB = {constants[1]}\nlower = (1, 2)\n\ndef function(x, y={default}):\n    {body}\n"
    )
    module = module_of("from __future__ import annotations\n" * future + text, tmp_path)
    given_argument = eval(argument)
    try:
        payload = function_source(module.function, lambda value: False).payload(module.function)
    except InvalidArgumentError as error:
        # The file and the line of what cannot be sent.
        line = int(re.search(rf"{re.escape(str(module.__file__))}:(\d+)", error.field)[1])  # type: ignore[index]
        first = module.function.__code__.co_firstlineno
        assert first <= line <= len(text.splitlines()) + future
        OUTCOMES["refused"] += 1
        return
    try:
        at_home: Any = module.function(given_argument)
    except Exception as error:
        with pytest.raises(type(error)):
            load(json.loads(json.dumps(payload)))(given_argument)
        OUTCOMES["raises"] += 1
        return
    there = load(json.loads(json.dumps(payload)))(decode(json.loads(json.dumps(encode(given_argument, "x")))))
    told = {"max_bytes": 10_000, "result_path": None}
    try:
        found = decode(json.loads(json.dumps(answer(told, there)["value"])))
    except ResultError:
        OUTCOMES["no result"] += 1
        # Airflow could not store it either: or it is an object of the program.
        with pytest.raises(ValueError, match="cannot be sent"):
            encode(at_home, "it", result=True)
        return
    OUTCOMES["same"] += 1
    # An enumeration arrives as its value, so its class has another name there, and it shows itself in another way.
    shown = "__name__" in expression or "repr(" in expression
    if not (shown and re.search(r"=\s*(Mode|Level)\.", text)):
        assert same(found, plain_enumerations(at_home)), (text, found, at_home)


def test_grammar_has_reached_all_outcomes() -> None:
    if sum(OUTCOMES.values()):
        assert all(count > 5 for name, count in OUTCOMES.items() if name != "raises"), OUTCOMES
