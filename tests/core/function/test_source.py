"""Which functions can travel, what travels of them, and what is said of those that can not."""

from __future__ import annotations

import collections
import datetime
import functools
import json
import logging
import math as mathematics
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.function.source import FunctionSource, function_source
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.remote.runner import load
from tests.support.modules import load_module

LIMIT = 10
LEVELS = ("low", "high")
_NAMES = {"a": [1, 2]}
NOT_SENT = re.compile("x")
lower_case = 5


def ours(function: Any = None, **arguments: Any) -> Any:
    """Stands for our decorator, as Airflow's stands for a decorated function afterwards."""
    return function if function is not None else ours


def other(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def careless(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def labelled(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def helper() -> int:
    return 1


def source_of(function: Any) -> FunctionSource:
    return function_source(function, lambda value: value is ours)


def run(function: Any, *args: Any, **kwargs: Any) -> Any:
    """The function as it is on the cluster, called."""
    payload = json.loads(json.dumps(source_of(function).payload(function)))
    return load(payload)(*args, **kwargs)


def refusal(function: Any) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        source_of(function)
    return str(caught.value)


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Makes a module of a text, in a file of its own."""
    made: list[str] = []

    def make(text: str) -> ModuleType:
        name = f"written_{tmp_path.name}_{len(made)}"
        file = tmp_path / f"{name}.py"
        file.write_text(textwrap.dedent(text))
        made.append(name)
        return load_module(name, file)

    yield make
    for name in made:
        sys.modules.pop(name, None)


# --- what travels ---------------------------------------------------------------------------------------------------


def simple(x: int, y: int = LIMIT, *rest: int, z: list[int] = [3], **more: Unknown) -> Missing:  # type: ignore  # noqa: B006, F821
    """A docstring."""
    import math

    total: Unknown = x + y + sum(rest) + sum(z)  # type: ignore  # noqa: F821
    return [total, math.floor(2.5), sorted(more)]


def test_a_function_of_a_module() -> None:
    found = source_of(simple)
    assert (found.name, found.filename, found.defaults) == ("simple", __file__, {"y": 10, "z": [3]})
    assert Path(__file__).read_text().splitlines()[found.first_line - 1].startswith("def simple(")
    assert run(simple, 1) == [14, 2, []]
    assert run(simple, 1, 2, 3, 4, z=[0], a=1, b=2) == [10, 2, ["a", "b"]]


def test_hints_that_python_evaluates_are_not_needed(module: Any) -> None:
    written = module(
        """
        from collections import OrderedDict as Ordered
        import decimal

        def hinted(x: decimal.Decimal, *args: Ordered, y: "Ordered" = None, **more: Ordered) -> Ordered:
            inner: Ordered = x
            def deeper():
                inmost: Ordered = inner
                return inmost
            return deeper()
        """
    )
    found = source_of(written.hinted)
    assert not found.future_annotations
    assert run(written.hinted, 3) == 3


def test_inner_hints_are_evaluated_as_they_would_be_at_home(module: Any) -> None:
    text = """
    {future}
    import decimal

    def hinted(x):
        def inner(y: decimal.Decimal):
            return y
        return inner(x)
    """
    assert run(module(text.format(future="from __future__ import annotations")).hinted, 3) == 3
    assert "Import it inside the function (import decimal)" in refusal(module(text.format(future="")).hinted)
    text = "import decimal\n\ndef hinted():\n    class Box:\n        size: decimal.Decimal = 1\n    return Box.size"
    assert "Import it inside the function (import decimal)" in refusal(module(text).hinted)


def test_nested_and_indented_functions_keep_their_texts() -> None:
    if True:

        @ours(
            cluster_id="x",
        )
        def indented(n: int) -> Any:
            text = """
no margin
    a margin"""

            def inner(k: int) -> int:
                return k if k < 2 else inner(k - 1) + n

            return [text, inner(3)]

    assert run(indented, 5) == ["\nno margin\n    a margin", 11]


def test_a_function_may_call_itself_with_its_defaults() -> None:
    def factorial(n: int, product: int = 1) -> int:
        return product if n < 2 else factorial(n - 1, product * n)

    def many(n: int, step: int = 1) -> int:
        return 0 if n <= 0 else step + many(n - step)

    assert run(factorial, 5) == 120
    assert run(many, 5) == 5


def constants() -> Any:
    return [LIMIT, LEVELS, _NAMES["a"], [LIMIT for _ in range(2)], (lambda: LIMIT)(), __name__]


def test_constants_travel_with_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_of(constants).constants == ("LEVELS", "LIMIT", "_NAMES")
    assert run(constants) == [10, ("low", "high"), [1, 2], [10, 10], 10, "__main__"]
    # Their values are those of the moment.
    found = source_of(constants)
    monkeypatch.setitem(globals(), "LIMIT", 11)
    assert found.payload(constants)["constants"]["LIMIT"] == 11
    monkeypatch.setitem(globals(), "LIMIT", object())
    with pytest.raises(InvalidArgumentError, match="LIMIT"):
        found.payload(constants)


def test_constants_of_the_function_around() -> None:
    SIZE = 3  # noqa: N806

    def sized() -> int:
        return SIZE

    assert run(sized) == 3


COUNTER = 5
CACHE = None
a_counter = 5


def test_globals_that_are_read_before_they_are_assigned() -> None:
    def counts() -> int:
        global COUNTER
        COUNTER += 1
        return COUNTER

    def remembers() -> Any:
        def load() -> Any:
            global CACHE
            if CACHE is None:
                CACHE = [1]
            return CACHE

        return load() + load()

    def is_no_constant() -> int:
        global a_counter
        a_counter += 1
        return a_counter

    assert run(counts) == 6
    assert run(remembers) == [1, 1]
    assert (COUNTER, CACHE) == (5, None)
    with pytest.raises(InvalidArgumentError, match=r"a_counter.*UPPER_CASE"):
        source_of(is_no_constant)


def test_names_that_are_bound_inside() -> None:
    def bound(items: list[int]) -> Any:
        global made_here

        from os import path as somewhere

        class Box:
            size = 2
            twice = size * 2

            def get(self) -> int:
                return self.size + __class__.size  # type: ignore

        made_here = 1
        count = 0

        def add() -> None:
            nonlocal count
            count += 1

        add()
        try:
            raise ValueError("x")
        except ValueError as error:
            text = str(error)
        if (last := items[-1]) > 1:
            text += str(last)
        return [Box().get(), Box.twice, made_here, count, text, somewhere.sep, [i for i in items for j in range(i)]]

    assert run(bound, [1, 2]) == [4, 4, 1, 1, "x2", "/", [1, 2, 2]]
    assert "made_here" not in globals()


# --- decorators -----------------------------------------------------------------------------------------------------


def test_decorators_above_stay_behind_and_those_that_wrap_nothing_too() -> None:
    @other
    @ours(cluster_id="x")
    @labelled
    def decorated() -> int:
        return 1

    found = source_of(decorated.__wrapped__)  # type: ignore[attr-defined]
    assert found.kept_decorators == 0
    assert run(decorated.__wrapped__) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["task.vertex_ray", "mine"])
def test_decorators_below_travel_where_they_can_be_imported(module: Any, name: str) -> None:
    written = module(
        f"""
        import contextlib
        import functools
        from functools import lru_cache as cached

        class task:
            @staticmethod
            def vertex_ray(**arguments):
                return lambda function: function

        mine = task.vertex_ray

        @{name}(cluster_id="x")
        @cached(maxsize=2 * 2)
        @functools.wraps(len)
        def decorated(n):
            return [n]
        """
    )
    decorated = written.decorated
    # functools.wraps(len) has made it look like something else.
    decorated.__wrapped__.__wrapped__ = lambda: None
    with pytest.raises(InvalidArgumentError):
        source_of(decorated)
    del decorated.__wrapped__.__wrapped__
    found = function_source(decorated, lambda value: value is written.mine)
    assert found.kept_decorators == 2
    assert found.imports == (("cached", "functools", "lru_cache"), ("functools", "functools", ""))
    function = load(found.payload(decorated))
    assert function(1) is function(1)


def test_decorators_below_that_can_not_travel_are_named() -> None:
    @ours(cluster_id="x")
    @other
    def decorated() -> int:
        return 1

    assert ": '@other'. " in refusal(decorated)
    assert "'other' cannot be imported" in refusal(decorated)


def test_a_wrapper_whose_decorators_are_elsewhere() -> None:
    def plain_function() -> int:
        return 1

    assert "the decorators that wrapped it cannot be determined" in refusal(other(plain_function))


def test_a_decorator_that_hides_its_function() -> None:
    @ours
    @careless
    def decorated() -> int:
        return 1

    text = refusal(decorated)
    assert ": 'function'. " in text
    assert "functools.wraps" in text


# --- what is refused ------------------------------------------------------------------------------------------------


def uses_module() -> Any:
    return [0, mathematics.pi]


def uses_class() -> Any:
    made = collections.OrderedDict()
    return made, Path()


def uses_function() -> Any:
    return helper()


def uses_value() -> Any:
    return lower_case


def uses_set() -> Any:
    return NOT_SENT


log = logging.getLogger("of.the.module")
tripled = functools.partial(max, 3)


def uses_logger() -> Any:
    log.info("hello")


def uses_partial() -> Any:
    return tripled(4)


def uses_nothing_known() -> Any:
    return unheard_of  # type: ignore  # noqa: F821


def uses_itself_as_default(x: Any = object()) -> Any:  # noqa: B008
    return x


@pytest.mark.parametrize(
    ("function", "name", "rule"),
    [
        (uses_module, "'mathematics'", "Import it inside the function (import math as mathematics)"),
        (uses_class, "'collections'", "Import it inside the function (import collections)"),
        (uses_function, "'helper'", "Define it inside the function, or import it there from a module"),
        (uses_value, "'lower_case'", "Pass the value as an argument, or make it a constant"),
        (uses_set, "'NOT_SENT'", "NOT_SENT (re.Pattern) cannot be sent"),
        (uses_nothing_known, "'unheard_of'", "Define the name; it does not exist."),
        (uses_logger, "'log'", "(import logging; log = logging.getLogger('of.the.module'))"),
        (uses_partial, "'tripled'", "Make it inside the function, where max must be imported or defined too"),
        (uses_itself_as_default, "'the default of x'", "(object) cannot be sent"),
    ],
)
def test_names_that_do_not_travel(function: Any, name: str, rule: str) -> None:
    text = refusal(function)
    assert text.startswith(f"Invalid value for @task.vertex_ray {function.__name__}, {__file__}:")
    assert f": {name}. " in text
    assert rule in text
    line = int(text.split(":")[1])
    shown = Path(__file__).read_text().splitlines()[line - 1]
    assert name.strip("'").rpartition(" ")[2] in shown


EXT, SHAPE, TODAY = (".csv", ".parquet"), (2, 3), datetime.date(2024, 1, 1)
POINT = collections.namedtuple("POINT", "x y")(1, 2)


def ends(name: str, size: Any = (224, 224), start: Any = datetime.datetime(2024, 1, 1)) -> Any:  # noqa: DTZ001
    return [name.endswith(EXT), "%d x %d" % SHAPE, {SHAPE: 1}, TODAY.isoformat(), size + (1,), start.year]  # noqa: UP031, RUF005


def uses_named_tuple() -> Any:
    return POINT.x


def test_constants_and_defaults_keep_their_types() -> None:
    assert run(ends, "a.csv") == ends("a.csv")
    assert "Use tuple(...) or _asdict() of it" in refusal(uses_named_tuple)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("from math import sqrt\ndef sqrt(x):\n    return sqrt(x)", True),
        ("from time import sleep\ndef sleep(x):\n    return [sleep(x) for _ in range(2)]", True),
        ("import json\ndef json(x):\n    return json.dumps(x)", False),
        ("def max(x):\n    return max(x)", True),
        ("def max(x):\n    return x.max", False),
        ("def count(n):\n    return n and count(n - 1)", False),
        ("from math import sqrt\ndef root(x):\n    from math import sqrt\n    return sqrt(x)", False),
    ],
)
def test_function_named_as_what_it_calls_is_refused(module: Any, text: str, refused: bool) -> None:
    name = text.split("def ")[1].partition("(")[0]
    # Checked while the decorator runs, when the name still has its old meaning.
    written = module(
        "from airflow_provider_vertex_ray.core.function.source import check_own_name\nseen = []\n"
        "def decorator(function):\n    try:\n        check_own_name(function)\n    except ValueError as error:\n"
        "        seen.append(str(error))\n    return function\n" + text.replace("def ", "@decorator\ndef ")
    )
    assert len(written.seen) == refused
    if refused:
        assert f"The name means this function itself here. Import the other {name} inside" in written.seen[0]


def test_names_of_the_function_around_do_not_travel() -> None:
    value, later = 3, [1]

    def closed() -> int:
        return value

    def changing() -> int:
        nonlocal value
        value += 1
        return value

    def unset() -> Any:
        return not_yet

    def imported() -> Any:
        return inner_json.dumps(1)

    assert ": 'value'. " in refusal(closed)
    assert ": 'value'. " in refusal(changing)
    assert "Pass the value as an argument; only the function itself is sent, not the functions around it." in refusal(
        unset
    )
    not_yet = later
    import json as inner_json

    assert "(import json as inner_json)" in refusal(imported)


def test_a_builtin_of_another_meaning_is_not_taken_for_the_builtin(module: Any) -> None:
    written = module("from math import pow\n\ndef power():\n    return pow(2, 3)\n")
    assert "(from math import pow)" in refusal(written.power)
    assert run(module("def power():\n    return pow(2, 3)\n").power) == 8


class Holder:
    def method(self) -> None: ...

    @staticmethod
    def static() -> int:
        return 4

    def __call__(self) -> None: ...


async def coroutine() -> None: ...


async def stream() -> Any:
    yield 1


def generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (Holder().method, "the object of a method is not sent"),
        (Holder(), "defined with def"),
        (Holder, "defined with def"),
        (len, "defined with def"),
        (functools.partial(simple, 1), "Decorate simple itself"),
        (lambda: 1, "defined with def"),
        (coroutine, "asyncio.run"),
        (stream, "asyncio.run"),
        (generator, "Return a list"),
    ],
)
def test_only_plain_functions_are_accepted(function: Any, rule: str) -> None:
    assert rule in refusal(function)


def test_a_static_method_is_a_plain_function() -> None:
    assert run(Holder.static) == 4


def test_a_source_that_is_not_there(module: Any) -> None:
    names: dict[str, Any] = {}
    exec("def made():\n    return 1\n", names)
    # Python 3.13 reads the line from the file of that name, which has none.
    assert re.search("its source cannot be read|Its file has no function", refusal(names["made"]))
    written = module("\n\ndef first():\n    return 1\n")
    Path(written.__file__).write_text("\n\ndef second():\n    return 1, 2\n")
    assert "has another definition at this line" in refusal(written.first)
    Path(written.__file__).write_text("\n\nanything = 1, 2, 3\n")
    assert "has no function at this line" in refusal(written.first) or "cannot be read" in refusal(written.first)


def test_a_notebook_that_was_exported(module: Any) -> None:
    written = module(
        """
        #!/usr/bin/env python
        # coding: utf-8

        # # A title

        # In[1]:


        SCALE = 3


        # In[2]:


        def cell(x):
            # In between
        # not indented
            return x * SCALE
        # In[3]:


        cell(2)
        """
    )
    assert run(written.cell, 2) == 6
