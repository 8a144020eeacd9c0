"""PromQL over series that tests write."""

from __future__ import annotations

import math
from typing import Any

import pytest
from vertex_ray_emulator.google.metrics_store import MOST_SAMPLES, MetricsStore
from vertex_ray_emulator.google.promql import PromQlError, compile_query

T = 10_000.0


@pytest.fixture(scope="module")
def store() -> MetricsStore:
    store = MetricsStore()
    for k in range(61):  # ten minutes, one sample each ten seconds
        at = T - 600 + 10 * k
        store.observe(
            "one",
            at,
            [
                ("cpu", {"cluster": "a", "node": "1"}, 10.0),
                ("cpu", {"cluster": "a", "node": "2"}, float(k)),
                ("cpu", {"cluster": "b", "node": "1"}, 30.0),
                ("mem_used", {"cluster": "a", "node": "1"}, 2.0),
                ("mem_total", {"cluster": "a", "node": "1"}, 8.0),
            ],
        )
    return store


def evaluate(store: MetricsStore, text: str, at: float = T) -> Any:
    value = compile_query(text, store).step(at)
    if not isinstance(value, list):
        return value
    return {",".join(f"{k}={v}" for k, v in sorted(labels.items())): number for labels, number in value}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * (3 - 5) / 4", 0.0),
        ("1 / 0", math.inf),
        ("vector(3)", {"": 3.0}),
        ('cpu{cluster="b"}', {"__name__=cpu,cluster=b,node=1": 30.0}),
        ('cpu{cluster!="a"}', {"__name__=cpu,cluster=b,node=1": 30.0}),
        ('cpu{cluster=~"a|c", node!~"1"}', {"__name__=cpu,cluster=a,node=2": 60.0}),
        ('cpu{cluster=~"b.+"}', {}),
        ('{__name__="mem_used"}', {"__name__=mem_used,cluster=a,node=1": 2.0}),
        ("none", {}),
        ("sum(cpu)", {"": 100.0}),
        ("avg by (cluster) (cpu)", {"cluster=a": 35.0, "cluster=b": 30.0}),
        ("max without (node) (cpu)", {"cluster=a": 60.0, "cluster=b": 30.0}),
        ("min(cpu)", {"": 10.0}),
        ("count(cpu) by (node)", {"node=1": 2.0, "node=2": 1.0}),
        ("sum(none)", {}),
        ("mem_used / mem_total * 100", {"cluster=a,node=1": 25.0}),
        ("100 * sum(mem_used) / sum(mem_total)", {"": 25.0}),
        ("cpu > 20", {"__name__=cpu,cluster=a,node=2": 60.0, "__name__=cpu,cluster=b,node=1": 30.0}),
        ("20 < cpu < 40", {"__name__=cpu,cluster=b,node=1": 30.0}),
        ("mem_used < mem_total", {"__name__=mem_used,cluster=a,node=1": 2.0}),
        ("mem_used > mem_total", {}),
        ("sum(none) or 0 * count(cpu)", {"": 0.0}),
        (
            "mem_used or cpu{cluster='b'}",
            {"__name__=mem_used,cluster=a,node=1": 2.0, "__name__=cpu,cluster=b,node=1": 30.0},
        ),
        ("mem_used or mem_total", {"__name__=mem_used,cluster=a,node=1": 2.0}),
        # A range contains the samples after its beginning, up to its end.
        ('avg_over_time(cpu{cluster="a",node="2"}[1m])', {"cluster=a,node=2": 57.5}),
        ('max_over_time(cpu{node="2"}[5m])', {"cluster=a,node=2": 60.0}),
        ('min_over_time(cpu{node="2"}[5m])', {"cluster=a,node=2": 31.0}),
    ],
)
def test_value(store: MetricsStore, text: str, expected: Any) -> None:
    assert evaluate(store, text) == (pytest.approx(expected) if expected else expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sum(", "parenthesis"),
        ("", "no expression"),
        ("nothing_like_it(cpu)", "unknown function"),
        ("rate(cpu)", "expected type"),
        ("cpu @ 5", "@ modifier"),
        ("cpu offset 5m", "offset modifier"),
        ("-cpu", "unary"),
        ("1 > bool 2", "bool modifier"),
        ("1 > 2", "BOOL modifier"),
        ("cpu ^ 2", r"operator \^"),
        ("mem_used and cpu", "operator and"),
        ("mem_used unless cpu", "operator unless"),
        ("rate(cpu[1m])", "function rate"),
        ("absent(none)", "function absent"),
        ("topk(1, cpu)", "topk"),
        ("histogram_quantile(0.9, cpu)", "histogram_quantile"),
        ("avg_over_time(cpu[5m:1m])", "subqueries"),
        ("cpu * on (node) group_left cpu", "group_left"),
        ("cpu + on (cluster, node) mem_total", "on, ignoring"),
        ("cpu + ignoring (cluster) mem_total", "on, ignoring"),
        ('cpu{a=~"("}', "reg"),
        ("(" * 3000 + "cpu" + ")" * 3000, "nested too deeply"),
        ("(" * 100_000 + "cpu" + ")" * 100_000, "10000 characters besides strings"),
    ],
)
def test_unsupported_or_invalid_query_is_rejected(store: MetricsStore, text: str, words: str) -> None:
    with pytest.raises(PromQlError, match=words):
        evaluate(store, text)


def test_two_series_with_equal_labels_on_one_side_are_an_error(store: MetricsStore) -> None:
    with pytest.raises(PromQlError, match="duplicate series .* on the right hand-side"):
        evaluate(store, 'cpu + {__name__=~"mem_.+"}')
    with pytest.raises(PromQlError, match="duplicate series .* on the left hand-side"):
        evaluate(store, '{__name__=~"mem_.+"} + cpu')


def counts(store: MetricsStore, at: float) -> dict[str, int]:
    """Return the number of samples of each ``cpu`` series in the minute before a time."""
    ranged = compile_query("cpu[1m]", store).ranged
    assert ranged is not None
    return {labels["cluster"]: len(samples) for labels, samples in ranged(at)}


def test_series_that_ended_has_no_value_but_keeps_its_past() -> None:
    store = MetricsStore()
    store.observe("k", 100, [("cpu", {"cluster": "a"}, 1.0), ("cpu", {"cluster": "b"}, 2.0)])
    store.observe("k", 110, [("cpu", {"cluster": "a"}, 1.5)])
    assert evaluate(store, "count(cpu)", 109) == {"": 2.0}
    assert evaluate(store, "sum(cpu)", 110) == {"": 1.5}
    store.end("k", 120)
    assert evaluate(store, "cpu", 121) == {}
    assert counts(store, 121) == {"a": 2, "b": 1}
    store.forget_gone()
    assert counts(store, 121) == {}


def test_sample_is_current_for_five_minutes() -> None:
    store = MetricsStore()
    store.observe("k", 1000, [("cpu", {}, 1.0)])
    assert evaluate(store, "cpu", 1299) == {"__name__=cpu": 1.0}
    assert evaluate(store, "cpu", 1301) == {}
    assert evaluate(store, "cpu", 999) == {}


def test_long_series_is_thinned_and_keeps_a_whole_day() -> None:
    store = MetricsStore()
    for k in range(17_280):  # a day of one sample each five seconds
        store.observe("k", 5.0 * k, [("cpu", {"cluster": "a"}, 1.0)])
    (series,) = store.series("cpu")
    assert len(series.times) <= MOST_SAMPLES
    assert series.times[0] == 0
    assert counts(store, 5 * 17_279) == {"a": 12}
    store.observe("k", 2 * 86_400.0, [])
    store.trim(4 * 86_400.0)
    assert list(store.series("cpu")) == []
