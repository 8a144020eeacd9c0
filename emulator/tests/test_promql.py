"""PromQL over series that the test has written; the numbers of ``rate`` are those of Prometheus' own rules."""

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
                ("jobs_total", {"cluster": "a"}, float(k * 5 if k < 30 else (k - 30) * 5)),
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
        ("1 + 2 * 3 ^ 2 % 5", 1 + 2 * (3**2) % 5),
        ("-(4 / 8)", -0.5),
        ("1 > bool 2", 0.0),
        ("1 / 0", math.inf),
        ('cpu{cluster="b"}', {"__name__=cpu,cluster=b,node=1": 30.0}),
        ('cpu{cluster!="a"}', {"__name__=cpu,cluster=b,node=1": 30.0}),
        ('cpu{cluster=~"a|c", node!~"1"}', {"__name__=cpu,cluster=a,node=2": 60.0}),
        ('cpu{cluster=~"b.+"}', {}),
        ('{__name__="mem_used"}', {"__name__=mem_used,cluster=a,node=1": 2.0}),
        ('cpu{cluster="a",node="2"} offset 1m', {"__name__=cpu,cluster=a,node=2": 54.0}),
        ("none", {}),
        ("sum(cpu)", {"": 100.0}),
        ("avg by (cluster) (cpu)", {"cluster=a": 35.0, "cluster=b": 30.0}),
        ("max without (node) (cpu)", {"cluster=a": 60.0, "cluster=b": 30.0}),
        ("min(cpu)", {"": 10.0}),
        ("count(cpu) by (node)", {"node=1": 2.0, "node=2": 1.0}),
        ("sum(none)", {}),
        ("mem_used / mem_total * 100", {"cluster=a,node=1": 25.0}),
        ("cpu > 20", {"__name__=cpu,cluster=a,node=2": 60.0, "__name__=cpu,cluster=b,node=1": 30.0}),
        ("20 < cpu < 40", {"__name__=cpu,cluster=b,node=1": 30.0}),
        ('cpu{cluster="a"} == bool 10', {"cluster=a,node=1": 1.0, "cluster=a,node=2": 0.0}),
        ("mem_used + on (cluster, node) mem_total", {"cluster=a,node=1": 10.0}),
        ("mem_used < ignoring (cluster) mem_total", {"__name__=mem_used,node=1": 2.0}),
        ("mem_used and cpu", {"__name__=mem_used,cluster=a,node=1": 2.0}),
        ("mem_used unless cpu", {}),
        ("none or vector(0)", {"": 0.0}),
        ("absent(none)", {"": 1.0}),
        ("absent(cpu)", {}),
        ("scalar(sum(cpu)) + 1", 101.0),
        ("time()", T),
        ("ceil(cpu / 7)", {"cluster=a,node=1": 2.0, "cluster=a,node=2": 9.0, "cluster=b,node=1": 5.0}),
        # A range holds the samples after its beginning, up to its end.
        ('avg_over_time(cpu{cluster="a",node="2"}[1m])', {"cluster=a,node=2": 57.5}),
        ('max_over_time(cpu{node="2"}[5m])', {"cluster=a,node=2": 60.0}),
        ('min_over_time(cpu{node="2"}[5m])', {"cluster=a,node=2": 31.0}),
        ('sum_over_time(cpu{cluster="b"}[1m])', {"cluster=b,node=1": 180.0}),
        ('count_over_time(cpu{cluster="b"}[1m])', {"cluster=b,node=1": 6.0}),
        # The 50 seconds between the samples grow by 25, and the range is 60 seconds.
        ("increase(jobs_total[1m])", {"cluster=a": 30.0}),
        ("rate(jobs_total[1m])", {"cluster=a": 0.5}),
    ],
)
def test_value(store: MetricsStore, text: str, expected: Any) -> None:
    assert evaluate(store, text) == (pytest.approx(expected) if expected else expected)


def test_a_counter_that_was_reset_goes_on(store: MetricsStore) -> None:
    # From 145 to 0 at half time, and to 150: the samples of the whole range are 0 to 600 seconds.
    found = evaluate(store, "increase(jobs_total[11m])")["cluster=a"]
    assert found == pytest.approx(295.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sum(", "parenthesis"),
        ("", "no expression"),
        ("nothing_like_it(cpu)", "unknown function"),
        ("rate(cpu)", "expected type"),
        ("cpu @ 5", "@ modifier"),
        ("topk(1, cpu)", "topk"),
        ("histogram_quantile(0.9, cpu)", "histogram_quantile"),
        ("avg_over_time(cpu[5m:1m])", "subquery"),
        ("cpu * on (node) group_left cpu", "group_left"),
        ('cpu{a=~"("}', "reg"),
    ],
)
def test_what_is_not_evaluated_is_refused(store: MetricsStore, text: str, words: str) -> None:
    with pytest.raises(PromQlError, match=words):
        evaluate(store, text)


def test_two_series_that_fit_one_are_an_error(store: MetricsStore) -> None:
    with pytest.raises(PromQlError, match="duplicate series"):
        evaluate(store, "mem_used + on (cluster) cpu")


def test_what_is_gone_is_gone_at_once_and_its_past_stays() -> None:
    store = MetricsStore()
    store.observe("k", 100, [("cpu", {"cluster": "a"}, 1.0), ("cpu", {"cluster": "b"}, 2.0)])
    store.observe("k", 110, [("cpu", {"cluster": "a"}, 1.5)])
    assert evaluate(store, "count(cpu)", 109) == {"": 2.0}
    assert evaluate(store, "sum(cpu)", 110) == {"": 1.5}
    store.end("k", 120)
    assert evaluate(store, "cpu", 121) == {}
    assert evaluate(store, "count_over_time(cpu[1m])", 121) == {"cluster=a": 2.0, "cluster=b": 1.0}
    store.forget_gone()
    assert evaluate(store, "count_over_time(cpu[1m])", 121) == {}


def test_a_sample_counts_for_five_minutes() -> None:
    store = MetricsStore()
    store.observe("k", 1000, [("cpu", {}, 1.0)])
    assert evaluate(store, "cpu", 1299) == {"__name__=cpu": 1.0}
    assert evaluate(store, "cpu", 1301) == {}
    assert evaluate(store, "cpu", 999) == {}


def test_a_long_series_is_thinned_out_and_keeps_its_day() -> None:
    store = MetricsStore()
    for k in range(17_280):  # a day of one sample each five seconds
        store.observe("k", 5.0 * k, [("cpu", {}, 1.0)])
    (series,) = store.series("cpu")
    assert len(series.times) <= MOST_SAMPLES
    assert series.times[0] == 0
    assert evaluate(store, "count_over_time(cpu[5m])", 5 * 17_279) == {"": 60.0}
    store.observe("k", 2 * 86_400.0, [])
    store.trim(4 * 86_400.0)
    assert list(store.series("cpu")) == []
