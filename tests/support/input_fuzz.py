"""Odd arguments for all operators and sensors, given directly or rendered: what may happen, and what must not."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import datetime
import decimal
import enum
import functools
import io
import json
import pathlib
import random
import re
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    BaseSensorOperator,
    TaskDeferred,
)
from emulator_support.process import PATIENCE

from airflow_provider_vertex_ray.core.http.retry import RetryPolicy
from airflow_provider_vertex_ray.errors import InvalidArgumentError, VertexRayError
from tests.support.answer_fuzz import everything_logged_to
from tests.support.raw_service import PLANTED_TOKEN, PROJECT, RawService, raw_service
from tests.support.stored import stored
from tests.support.tasks import context_of, round_trip

PLANTED = "planted-input-47114711"
"""A secret that arguments contain where users put theirs."""

OWN = "/airflow_provider_vertex_ray/"
"""What the package's own lines have in a traceback."""

SECRET_FIELDS = ("env_vars", "runtime_env", "working_dir", "py_modules")


class Odd:
    """An object without any use as an argument."""


class Unprintable:
    """An object whose text cannot be made."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


class Incomparable(Unprintable):
    """An object that cannot be compared, hashed or tested."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class Text(str):
    """A string of another class, as JSON libraries and Airflow itself make them."""


class Colour(str, enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


def _cycle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def _deep(levels: int) -> list[Any]:
    return functools.reduce(lambda inner, _: [inner], range(levels), [])


def _array() -> Any:
    import numpy

    return numpy.array([1.5, 2.5])


def _number() -> Any:
    import numpy

    return numpy.int64(3)


TEXTS = [
    "", " ", "\n", "x", "a\n", "é🎉", "\x00", "a\x00b", "\ud800", "x" * 100_000, "None", "null", "[]", "{}", "1", "-1",
    "1.5", "NaN", "inf", "1e999", "true", "²", "٣", ".", "..", "a/b", "a b", "a?b", "%2e", "a#b", "-", "--", "gs://",
    "gs://b", "gs:///x", "gs://b/\x00", "s3://b/x", "http://[", "https://169.254.169.254/x", "ftp://x", "projects/",
    "projects/p/locations/l/persistentResources/c", "projects/p/locations/us-central1/persistentResources/../x",
    "us-central1", "us-central1.evil.example", "us-central1/../..", "a;b", "a'b", 'a"b', "a`b", "$(id)", "__class__",
    "2026-01-01", "2026-13-01T00:00:00Z", "99999-01-01", "{{", "{{ missing.attribute }}", "{{ value", "{% x %}", "{#",
    "%s", "{0}", "a.b", "p.d.t", "p:d.t", "a.b.c.d", "SELECT 1", "1@default", "n1-standard-8", "low", "RUNNING",
]  # fmt: skip
NUMBERS: list[Any] = [
    0, 1, -1, 2, 7, 1.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf"), 2**31, 2**63, 2**64, 10**400,
    10**5000, True, False,    decimal.Decimal("1.5"), decimal.Decimal("NaN"), 1 + 2j, Size.BIG,
]  # fmt: skip
OBJECTS: list[Callable[[], Any]] = [
    lambda: None, Odd, Unprintable, Incomparable, lambda: Odd, lambda: len, lambda: (lambda: 1), lambda: json,
    lambda: ..., lambda: NotImplemented, lambda: Text("x"), lambda: Colour.RED, lambda: b"x", lambda: bytearray(b"x"),
    lambda: memoryview(b"x"), lambda: pathlib.Path("/tmp/no such"), lambda: datetime.datetime(2026, 1, 1),  # noqa: DTZ001
    lambda: datetime.datetime.max.replace(tzinfo=datetime.timezone.utc), lambda: datetime.timedelta(seconds=5),
    lambda: datetime.timedelta.max, lambda: datetime.date(2026, 1, 1), lambda: iter([1]), lambda: (n for n in "ab"),
    lambda: range(3), lambda: {1, 2}, lambda: frozenset({"a"}), lambda: re.compile("x"), lambda: ValueError("x"),
    list, dict, tuple, lambda: [None], lambda: [[]], lambda: [{}], lambda: {"a": None}, lambda: {1: 2},
    lambda: {None: "x"}, lambda: {("a",): 1}, lambda: {"": ""}, lambda: {"\x00": "\x00"}, lambda: {"a": Incomparable()},
    lambda: [Incomparable()], lambda: {"a": {"b": {"c": 1}}}, lambda: {"a": float("nan")}, lambda: ["a", 1],
    lambda: ("a", "b"), lambda: [Odd()],
    _cycle, lambda: _deep(50), lambda: _deep(900), lambda: {"a": _cycle()}, _array, _number, lambda: {"a": _array()},
    lambda: ["x"] * 20_000, lambda: {str(n): n for n in range(5_000)}, lambda: threading.Lock(),
]  # fmt: skip


def odd_value(rng: random.Random, valid: Any = None) -> Any:
    """A value of any kind; often one that is nearly valid."""
    kind = rng.random()
    if kind < 0.25 and isinstance(valid, (dict, list, tuple)) and valid:
        return _damaged(rng, copy.deepcopy(valid))
    if kind < 0.5:
        return rng.choice(TEXTS)
    if kind < 0.65:
        return rng.choice(NUMBERS)
    if kind < 0.92:
        return rng.choice(OBJECTS)()
    if kind < 0.96:
        return [odd_value(rng) for _ in range(rng.randrange(4))]
    return {rng.choice(TEXTS): odd_value(rng) for _ in range(rng.randrange(4))}


def _damaged(rng: random.Random, valid: Any) -> Any:
    """The valid value with a part of it replaced, removed or added."""
    if isinstance(valid, dict) and valid:
        key = rng.choice(list(valid))
        kind = rng.random()
        if kind < 0.15:
            return {**valid, rng.choice(TEXTS): odd_value(rng)}
        if kind < 0.25:
            return {each: item for each, item in valid.items() if each != key}
        return {**valid, key: _damaged(rng, valid[key]) if kind < 0.75 else odd_value(rng)}
    if isinstance(valid, (list, tuple)) and valid:
        place = rng.randrange(len(valid))
        items = [*valid]
        items[place] = _damaged(rng, items[place])
        return type(valid)(items)
    return odd_value(rng)


def secret_value(rng: random.Random, name: str) -> Any:
    """A value of an argument that holds secrets, valid or not."""
    inner: Any = rng.choice(
        [PLANTED, [PLANTED], {"A": PLANTED}, (PLANTED, Odd()), f"A={PLANTED}", {"A": {"B": PLANTED, "C": Odd()}}]
    )
    if name in ("working_dir", "py_modules"):
        uri = rng.choice(
            [
                f"https://storage.googleapis.com/b/x.zip?X-Goog-Signature={PLANTED}",
                f"https://user:{PLANTED}@host.example/x.zip",
                f"https://host.example/x?token={PLANTED}",
                f"ftp://user:{PLANTED}@host.example/x.zip",
            ]
        )
        return uri if name == "working_dir" else rng.choice([[uri], uri, [[uri]], [uri, 7]])
    variables = rng.choice(
        [{"PASSWORD": PLANTED}, {"PASSWORD": inner}, inner, {1: PLANTED}, {"A=B": PLANTED}, {"A": PLANTED.encode()}]
    )
    if name == "env_vars":
        return rng.choice([variables, variables, json.dumps(variables, default=repr), str(variables), [variables]])
    pip = f"--extra-index-url=https://user:{PLANTED}@index.example/simple"
    environment = rng.choice(
        [
            {"env_vars": variables},
            {"envvars": variables},
            {"env_vars": {"A": PLANTED}, "working_dir": 7},
            {"env_vars": {"A": PLANTED}, "nonsense": 1},
            {"env_vars": {"A": PLANTED}, "pip": [1]},
            {"pip": [pip, 7]},
            {"pip": [pip]},
            {"pip": {"packages": [pip], "nonsense": 1}},
            {"uv": [pip]},
            {"config": {"setup_timeout_seconds": "x"}, "env_vars": {"A": PLANTED}},
            {"container": {"run_options": [f"-e A={PLANTED}"]}},
            {"A": PLANTED},
            [PLANTED],
        ]
    )
    return rng.choice([environment, environment, json.dumps(environment, default=repr), str(environment)])


@dataclass
class InputResult:
    """What came of the inputs.

    :param inputs: number of tasks that were constructed, and run where that was possible
    :param outcomes: number of inputs by type of error, "deferred" or "result"
    :param untyped: errors that are not of this package, with their tracebacks
    :param late: inputs that were refused after a request had been sent
    :param unserialisable: triggers that Airflow could not store
    :param shown: inputs after which a secret was shown
    """

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    untyped: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    unserialisable: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)


@contextmanager
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawService]:
    """A service with one cluster and one job, in a loop of its own, which the hooks of this process find."""
    monkeypatch.setattr(RetryPolicy, "delay", lambda self, failures, retry_after: 0.0001)
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()
    found: list[RawService] = []

    async def serve() -> None:
        async with raw_service() as service:
            found.append(service)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    service = found[0]
    service.add("shared")
    service.jobs["shared"] = [{"type": "SUBMISSION", "submission_id": "job", "status": "RUNNING"}]
    monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", service.host)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{service.host}")
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", f"google-cloud-platform://?project={PROJECT}")
    try:
        yield service
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
        loop.close()


@dataclass
class InputFuzz:
    """One run of odd inputs.

    :param seed: makes the same inputs again
    :param build: constructs an operator by the name of its class
    :param fields: the parameters of each class
    :param templated: its template fields
    :param minimal: valid arguments of each class
    """

    seed: int
    build: Callable[..., Any]
    fields: dict[str, list[str]]
    templated: dict[str, Sequence[str]]
    minimal: dict[str, dict[str, Any]]
    result: InputResult = field(default_factory=InputResult)

    def run(self, service: RawService, inputs: int) -> InputResult:
        """Try this many inputs."""
        rng = random.Random(self.seed)
        printed = io.StringIO()
        with everything_logged_to(printed), redirect_stdout(printed), redirect_stderr(printed):
            for _ in range(inputs):
                self._one(rng, service, printed)
        return self.result

    def _one(self, rng: random.Random, service: RawService, printed: io.StringIO) -> None:
        name = rng.choice(sorted(self.fields))
        chosen = rng.sample(self.fields[name], min(len(self.fields[name]), rng.choice([1, 1, 1, 2])))
        given: dict[str, Any] = {}
        for each in chosen:
            secret = each in SECRET_FIELDS and rng.random() < 0.7
            given[each] = secret_value(rng, each) if secret else odd_value(rng, self.minimal[name].get(each))
        rendered = rng.random() < 0.4
        label = f"{name} {'rendered ' if rendered else ''}{_text(given)}"
        self.result.inputs += 1
        service.requests.clear()
        told = [""]
        attempt = functools.partial(self._attempt, name, given, rendered, told, rng.random() < 0.5)
        try:
            outcome = attempt()
        except (VertexRayError, InvalidArgumentError) as error:
            outcome = type(error).__name__
            told.append("".join(traceback.format_exception(error)) + repr(error))
            refused = isinstance(error, InvalidArgumentError)
            # A request that the input before gave up may have arrived meanwhile: what is late is late again.
            if refused and service.asked() and (sent := _sent_again(service, attempt)):
                self.result.late.append(f"{label}: {_text(error)} after {sent}")
        except AirflowNotFoundException:
            # Airflow's own error for a connection that does not exist.
            outcome = "no connection"
        except Exception as error:
            text = "".join(traceback.format_exception(error))
            if isinstance(error, RecursionError) and "set_xcomargs_dependencies" in text and OWN not in text:
                # Airflow looks for XComs in every argument, without regard for lists that contain themselves.
                return
            outcome = f"untyped {type(error).__name__}"
            told.append(text)
            self.result.untyped.append(f"{label}: {text}")
        self.result.outcomes[outcome] += 1
        told.append(printed.getvalue())
        printed.seek(0)
        printed.truncate()
        for secret in (PLANTED, PLANTED_TOKEN):
            self.result.shown += [f"{label}: {text[:3000]}" for text in told if secret in text]

    def _attempt(self, name: str, given: dict[str, Any], rendered: bool, told: list[str], native: bool) -> str:
        more: dict[str, Any] = {}
        if "deferrable" in self.fields[name]:
            more["deferrable"] = True
        values: dict[str, Any] = {}
        templated = self.templated[name]
        for each, value in given.items():
            if rendered and each in templated:
                values[each] = value
                more[each] = f"{{{{ {each} }}}}"
            else:
                more[each] = value
        with DAG(
            "fuzz",
            schedule=None,
            start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
            render_template_as_native_obj=native,
        ):
            operator = self.build(name, **more)
        context = context_of(operator, **values)
        try:
            operator.render_template_fields(context)
        except InvalidArgumentError:
            raise
        except Exception as error:
            # What a template does is the user's and Jinja's; the values that it gives are ours.
            return f"rendering: {type(error).__name__}"
        told.append(_text(context["ti"].xcoms))
        if isinstance(operator, BaseSensorOperator):
            # One look, in the worker: the next one is of no interest.
            operator.timeout = 0
        try:
            operator.execute(context)
        except TaskDeferred as deferral:
            told.append(self._stored(name, deferral))
            return "deferred"
        except AirflowSensorTimeout:
            return "waits"
        finally:
            told.append(_text(context["ti"].xcoms))
        return "result"

    def _stored(self, name: str, deferral: TaskDeferred) -> str:
        try:
            round_trip(deferral.trigger)
            row = deferral.trigger.serialize()
            stored(row[1])
            return json.dumps(row)
        except Exception as error:
            self.result.unserialisable.append(f"{name}: {type(deferral.trigger).__name__}: {error!r}")
            return ""


def _sent_again(service: RawService, attempt: Callable[[], str]) -> list[str]:
    service.requests.clear()
    with contextlib.suppress(Exception):
        attempt()
    return service.asked()


def _text(value: Any) -> str:
    try:
        return ascii(value)[:600]
    except Exception:
        return f"<{type(value).__name__}>"
