"""What the page says of a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_vertex_ray.core.deadlines import span
from airflow_provider_vertex_ray.errors import NotAuthorisedError, ServiceUnavailableError
from airflow_provider_vertex_ray.plugins.page.cache import Cached
from airflow_provider_vertex_ray.plugins.page.cluster_view import cluster_view, log_view
from airflow_provider_vertex_ray.plugins.page.log import LogTail, plain
from airflow_provider_vertex_ray.plugins.page.owners import Owner
from airflow_provider_vertex_ray.plugins.page.query import ClusterQuery
from airflow_provider_vertex_ray.plugins.page.reader import ClusterFacts, Nodes, SourceFacts
from airflow_provider_vertex_ray.plugins.page.row import ClusterRow, cluster_row
from airflow_provider_vertex_ray.plugins.page.text import money, number, shortened
from airflow_provider_vertex_ray.plugins.page.view import overview
from airflow_provider_vertex_ray.price_table import PriceTable
from tests.plugins.builders import NOW, OWNER, cluster, facts, job, seen, stamp
from tests.support.leases import held_by

PRICES = PriceTable("USD", {"us-central1": {"machines": {"n1-standard-16": 1.0, "n1-standard-8": 0.5}}})


def _row(found: ClusterFacts, owner: Owner | None = None, may_read: bool = True) -> ClusterRow:
    return cluster_row(found, NOW, lambda _: may_read, lambda _: owner)


def _use(**given: Any) -> tuple[str, str, str]:
    use = _row(facts(**given)).use
    return use.head, use.tone, use.detail


def _idle(seconds: float) -> Any:
    return seen((job("j", "SUCCEEDED", end_time=int((NOW - seconds) * 1000)),))


def test_use_names_the_users() -> None:
    jobs = seen(tuple(job(f"job-{place}") for place in range(8)))
    lease = seen(held_by("etl/run", now=NOW))
    head, tone, detail = _use(jobs=jobs, lease=lease, idle_for=60.0, lease_uri="gs://bucket/l")
    assert (head, tone) == ("in use", "good")
    assert detail == "job job-0 and 7 more; lease holder etl/run"


def test_use_names_the_time_of_deletion() -> None:
    assert _use(jobs=_idle(60), idle_for=100.0) == ("idle for 1 min", "warn", "the reaper deletes it in 40 s")
    assert _use(jobs=_idle(200), idle_for=100.0)[2].startswith(
        "the reaper deletes it at its next run: idle for 3 min 20 s"
    )
    assert _use(jobs=_idle(590), idle_for=1000.0, max_age=630.0)[2] == "the reaper deletes it in 30 s"
    # A cluster that is to go anyway stays for 10 minutes after its last job.
    assert _use(jobs=_idle(60), idle_for=1000.0, max_age=30.0)[2] == "the reaper deletes it in 9 min"
    assert _use(jobs=_idle(60), idle_for=1000.0, superseded=True)[2] == "the reaper deletes it in 9 min"
    assert _use(jobs=_idle(60)) == ("idle for 1 min", "warn", "no reaper is configured here")
    assert _use(superseded=True, jobs=seen((job(),)), idle_for=100.0) == (
        "in use",
        "warn",
        "it was superseded by a newer generation; job job-1",
    )


def test_age_counts_from_running_as_for_the_reaper() -> None:
    # Created 600 s before, and RUNNING for 300 s.
    late = cluster(startTime=stamp(NOW - 300))
    assert _use(of=late, jobs=_idle(290), idle_for=1000.0, max_age=1000.0)[2] == "the reaper deletes it in 11 min 40 s"


def test_reaper_ignores_clusters_with_other_labels() -> None:
    found = facts(jobs=_idle(500), idle_for=100.0)
    found.source.label_filter["airflow-owner"] = ""  # type: ignore[index]
    assert _row(found).use.detail == "the reaper ignores it: its labels do not match"


@pytest.mark.parametrize(
    ("given", "head"),
    [
        ({"jobs": Cached(reading=True)}, "reading…"),
        ({"jobs": Cached(error=ServiceUnavailableError("x"))}, "treated as in use"),
        ({"lease": Cached(error=ServiceUnavailableError("x")), "lease_uri": "gs://bucket/l"}, "treated as in use"),
        ({"lease": Cached(reading=True), "lease_uri": "gs://bucket/l"}, "reading…"),
        ({"of": cluster(state="STOPPING")}, "being deleted"),
        ({"of": cluster(state="ERROR", error={"message": "quota"})}, "failed"),
        ({"of": cluster(state="PROVISIONING"), "jobs": Cached()}, "starting"),
        ({"of": cluster(state="UPDATING")}, "in use"),
    ],
)
def test_unknown_means_busy(given: dict[str, Any], head: str) -> None:
    assert _row(facts(idle_for=1.0, **given)).use.head == head


def test_row_has_figures() -> None:
    nodes = Nodes(3, {"CPU": (6.0, 16.0), "GPU": (None, 2.0)}, ("h", "w1", "w2"))
    row = _row(
        facts(
            jobs=seen((job(), job("p", "PENDING"), job("d", is_driver=True))), prices=seen(PRICES), nodes=seen(nodes)
        ),
        OWNER,
    )
    assert (row.running, row.pending, row.nodes, row.age) == (1, 1, "3", "10 min")
    assert (row.cost, row.hourly, row.node_hours) == ("$0.33", "$2.00/h", "0.5 node-hours")
    assert [(each.name, each.text, each.percent) for each in row.meters] == [
        ("CPU", "6 / 16", 37.5),
        ("GPU", "? / 2", None),
    ]
    assert row.owner == OWNER
    assert [name for name, _ in row.links] == ["Console", "Dashboard", "Logs", "Metrics"]


def test_stale_data_and_silent_dashboards_are_marked() -> None:
    row = _row(facts(jobs=Cached((), NOW - 90, ServiceUnavailableError("x"))))
    assert row.notes == ("The dashboard does not answer; jobs as of 1 min 30 s ago",)
    assert _row(facts(jobs=seen((), 46))).notes == ("jobs as of 46 s ago",)
    assert _row(facts(jobs=seen((), 40))).notes == ()
    unpriced = PriceTable("USD", {"us-central1": {"machines": {"n1-standard-16": 1.0}}})
    assert _row(facts(prices=seen(unpriced))).notes == ("no price for n1-standard-8 in us-central1",)


def test_unreadable_dag_is_not_named() -> None:
    row = _row(facts(jobs=seen((job("af-etl"),))), OWNER, may_read=False)
    assert row.owner is None
    assert row.owner_text == "a DAG that you may not read"
    assert "etl" not in row.use.detail


def test_overview_has_totals() -> None:
    found = [
        facts(prices=seen(PRICES)),
        facts(of=cluster("b"), jobs=seen((job(),)), prices=seen(PRICES)),
        facts(of=cluster("c", "PROVISIONING"), jobs=Cached()),
    ]
    clusters = tuple(each.cluster for each in found)
    view = overview([SourceFacts(found[0].source, seen(clusters), tuple(found))], NOW, lambda _: True, lambda _: None)
    figures = {name: (figure, remark) for name, figure, remark in view.figures}
    assert figures["Clusters"] == ("3", "2 billed now")
    assert figures["Nodes"] == ("6", "including heads")
    assert figures["Jobs running"] == ("1", "0 pending")
    assert figures["Idle"] == ("1", "unused clusters, $2.00 per hour")
    assert figures["Cost per hour"] == ("$4.00", "list prices, excluding disks")
    assert [row.cluster_id for row in view.sources[0].rows] == ["shared", "b", "c"]


def test_problem_names_connection_region_type_and_remedy() -> None:
    source = facts().source
    view = overview(
        [SourceFacts(source, Cached(error=NotAuthorisedError("denied")), ())], NOW, lambda _: True, lambda _: None
    )
    problem = view.sources[0].problem
    assert problem is not None
    assert (problem.what, problem.kind) == ("Connection google_cloud_default, region us-central1", "NotAuthorisedError")
    assert "roles/aiplatform" in problem.remedy


def test_job_table_is_bounded_and_filtered() -> None:
    jobs = [job(f"job-{place}") for place in range(30)] + [job("bad", "FAILED", message="m, last available logs (x)")]
    row = _row(facts(jobs=seen(tuple(jobs))))
    table = cluster_view(row, {}, None, now=NOW, query=ClusterQuery(jobs=5)).table
    assert (len(table.rows), table.more) == (5, 26)
    assert table.filters == (("all", 31, True), ("active", 30, False), ("failed", 1, False))
    failed = cluster_view(row, {}, None, now=NOW, query=ClusterQuery(show="failed")).table
    assert [(each.submission_id, each.message) for each in failed.rows] == [("bad", "m")]


def test_log_names_its_source() -> None:
    (visible,) = _row(facts(jobs=seen((job(),)))).jobs
    tail = LogTail(("a", "b"), "Cloud Logging", "The dashboard does not answer: x")
    found = log_view(visible, seen(tail), cluster(), NOW)
    assert found.about == "last 2 lines, from Cloud Logging. The dashboard does not answer: x"
    searched = log_view(visible, seen(LogTail(("a",), "dashboard")), cluster(), NOW, find="a")
    assert searched.about == "1 line with “a”, from the dashboard."
    failed = log_view(visible, Cached(error=ServiceUnavailableError("x")), cluster(), NOW)
    assert failed.problem is not None


def test_figures_are_formatted() -> None:
    assert [span(each) for each in (None, 0.04, 5, 59.6, 3661)] == ["-", "0.0 s", "5.0 s", "1 min", "1 h 1 min"]
    assert [number(each) for each in (None, float("nan"), 3, 3.25, 12.34, 1234.5)] == [
        "?",
        "?",
        "3",
        "3.25",
        "12.3",
        "1,234",
    ]
    assert [money(2.5, "USD"), money(2.5, "CHF"), money(None, "USD"), money(1, None)] == ["$2.50", "2.50 CHF", "", ""]
    assert shortened("a" * 50 + "end", 20) == "a" * 12 + "…" + "aaaaend"
    assert shortened("  a \n b ", 20) == "a b"


def test_terminal_codes_are_removed_from_log_lines() -> None:
    assert plain("at \x1b[1m\x1b[32mhttp://h \x1b[39m\x1b[22m\tok\r") == "at http://h \tok"
    assert plain("\x1b]0;title\x07text\x00 [1m é") == "text [1m é"
