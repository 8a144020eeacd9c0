"""Which clusters and jobs a search finds, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_vertex_ray.errors import ServiceUnavailableError
from airflow_provider_vertex_ray.plugins.page.cache import Cached
from airflow_provider_vertex_ray.plugins.page.job_table import job_table
from airflow_provider_vertex_ray.plugins.page.listing import fitting, owners, states
from airflow_provider_vertex_ray.plugins.page.owners import Owner
from airflow_provider_vertex_ray.plugins.page.query import NO_DAG, SORTS, ClusterQuery, ListQuery
from airflow_provider_vertex_ray.plugins.page.row import ClusterRow, cluster_row
from airflow_provider_vertex_ray.plugins.page.visible import visible_jobs
from airflow_provider_vertex_ray.price_table import PriceTable
from tests.plugins.builders import NOW, OWNER, cluster, facts, job, seen

PRICES = seen(PriceTable("USD", {"us-central1": {"machines": {"n1-standard-16": 1.0, "n1-standard-8": 0.5}}}))
SECRET = Owner("secret", "r", "t")


def _idle(seconds: float) -> Any:
    return seen((job("j", "SUCCEEDED", end_time=int((NOW - seconds) * 1000)),))


def _row(name: str, owner: Owner | None = None, **more: Any) -> ClusterRow:
    state = more.pop("state", "RUNNING")
    found = facts(of=cluster(name, state, age=more.pop("age", 20_000)), **more)
    return cluster_row(found, NOW, lambda dag_id: dag_id != "secret", lambda _: owner)


ROWS = [
    _row("busy", OWNER, jobs=seen((job("af-etl-1"), job("af-etl-2"))), prices=PRICES),
    _row("just-idle", jobs=_idle(60), prices=PRICES),
    _row("long-idle", Owner("train", "r", "t"), jobs=_idle(7200), prices=PRICES),
    _row("unpriced-idle", jobs=_idle(3600)),
    _row("hidden", SECRET, jobs=seen((job("af-secret", owner=SECRET),)), age=30_000),
    _row("silent", jobs=Cached(error=ServiceUnavailableError("x"))),
    _row("starts", state="PROVISIONING", jobs=Cached()),
    _row("broken", state="ERROR", jobs=Cached()),
]


def _names(**query: str) -> list[str]:
    return [row.cluster_id for row in fitting(ROWS, ListQuery(**query))]


def test_idle_money_comes_first() -> None:
    assert _names() == [
        *("long-idle", "just-idle", "unpriced-idle"),
        *("busy", "hidden", "silent", "starts", "broken"),
    ]
    idle = ROWS[2].idle
    assert idle is not None
    assert (idle.text, round(idle.node_hours, 3)) == ("$4.00", 6.0)
    assert ROWS[3].idle is not None
    assert ROWS[3].idle.text == "3 node-hours"
    # Unknown means busy, and what is not billed costs nothing.
    assert [row.cluster_id for row in ROWS if row.idle is None] == ["busy", "hidden", "silent", "starts", "broken"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"q": "IDLE long"}, ["long-idle"]),
        ({"q": "af-etl-1"}, ["busy"]),
        ({"q": "etl"}, ["busy"]),
        ({"q": "secret"}, []),
        ({"q": "nothing has this"}, []),
        ({"state": "PROVISIONING"}, ["starts"]),
        ({"use": "idle"}, ["long-idle", "just-idle", "unpriced-idle"]),
        ({"use": "used"}, ["busy", "hidden"]),
        ({"use": "unknown"}, ["silent"]),
        ({"owner": "train"}, ["long-idle"]),
        ({"owner": "secret"}, []),
        ({"owner": NO_DAG, "state": "ERROR"}, ["broken"]),
    ],
)
def test_clusters_are_found(query: dict[str, str], names: list[str]) -> None:
    assert _names(**query) == names


@pytest.mark.parametrize(
    ("sort", "first"),
    [("name", "broken"), ("state", "busy"), ("jobs", "busy"), ("age", "hidden"), ("cost", "busy"), ("hourly", "busy")],
)
def test_clusters_are_sorted(sort: str, first: str) -> None:
    assert _names(sort=sort)[0] == first
    assert sorted(_names(sort=sort)) == sorted(row.cluster_id for row in ROWS)


def test_every_order_works_and_hidden_dags_are_no_choice() -> None:
    for sort in SORTS:
        assert len(_names(sort=sort)) == len(ROWS)
    assert owners(ROWS) == (NO_DAG, "etl", "train")
    assert states(ROWS) == ("PROVISIONING", "RUNNING", "ERROR")


def _job(name: str, status: str, begin: float, length: float | None, **more: Any) -> Any:
    times: dict[str, Any] = {"start_time": int((NOW - begin) * 1000)}
    if length is not None:
        times["end_time"] = int((NOW - begin + length) * 1000)
    return job(name, status, **{**times, **more})


JOBS = visible_jobs(
    [
        _job("short", "SUCCEEDED", 50, 2),
        _job("long", "FAILED", 5000, 3000, entrypoint="python train.py --password x", hidden=("x-secret",)),
        _job("runs", "RUNNING", 100, None, owner=Owner("train", "r", "t")),
        _job("by-hand", "SUCCEEDED", 7000, 10, owner=None),
        _job("af-secret", "SUCCEEDED", 60, 1, owner=SECRET, entrypoint="python secret.py"),
        job("waits", "PENDING", start_time=None),
    ],
    lambda dag_id: dag_id != "secret",
)


def _jobs(**query: Any) -> list[str]:
    return [row.submission_id for row in job_table(JOBS, ClusterQuery(**query), NOW).rows]


def test_jobs_are_sorted() -> None:
    hidden = "of a DAG that you may not read"
    assert _jobs() == ["short", hidden, "runs", "long", "by-hand", "waits"]
    assert _jobs(sort="oldest") == ["by-hand", "long", "runs", hidden, "short", "waits"]
    assert _jobs(sort="longest") == ["long", "runs", "by-hand", "short", hidden, "waits"]
    assert _jobs(sort="shortest") == [hidden, "short", "by-hand", "runs", "long", "waits"]
    assert _jobs(sort="name") == ["by-hand", "long", "runs", "short", "waits", hidden]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"q": "TRAIN.py"}, ["long"]),
        ({"q": "secret"}, []),
        ({"dag": "train"}, ["runs"]),
        ({"dag": NO_DAG}, ["by-hand"]),
        ({"dag": "secret"}, []),
        ({"show": "failed"}, ["long"]),
        ({"within": f"{int(NOW - 7000)}-{int(NOW - 6900)}"}, ["by-hand"]),
        ({"within": "1h", "q": "long"}, ["long"]),
        ({"jobs": 1}, ["short"]),
    ],
)
def test_jobs_are_found(query: dict[str, Any], names: list[str]) -> None:
    assert _jobs(**query) == names


def test_table_counts_what_fits() -> None:
    table = job_table(JOBS, ClusterQuery(dag="etl", jobs=1), NOW)
    assert table.filters == (("all", 3, True), ("active", 1, False), ("failed", 1, False))
    assert (table.fitting, table.more) == (3, 2)
    assert table.dags == ((NO_DAG, 1), ("etl", 3), ("train", 1))
