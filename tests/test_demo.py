"""The demo reports the preflight's findings, and fails without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.preflight.report import Finding, Report, Status
from devtools.dag_run_report import DagRunReport
from devtools.demo_dags import DEMOS

DEMO = DEMOS["example_vertex_ray_shared_cluster"]
ANSWER = {"primes": 1, "twin_pairs": 2, "published": [1, 2]}


def run(*statuses: Status) -> DagRunReport:
    """Return a run whose preflight has findings with these statuses."""
    findings = tuple(Finding("quota", status, f"metric-{place}", "so it is") for place, status in enumerate(statuses))
    found: dict[str, Any] = Report("p", "us-central1", findings).to_dict()
    return DagRunReport(DEMO.dag_id, "run", Path(), xcoms={("combine", -1): ANSWER, ("preflight", -1): found})


def test_demo_accepts_passes_and_warnings() -> None:
    assert DEMO.wrong(run(Status.PASS, Status.WARN)) == []


@pytest.mark.parametrize("status", [Status.FAIL, Status.COULD_NOT_CHECK])
def test_demo_reports_findings_that_did_not_pass(status: Status) -> None:
    (problem,) = DEMO.wrong(run(Status.PASS, status))
    assert problem == f"preflight: quota of metric-1: {status.value}: so it is"


def test_demo_requires_a_preflight() -> None:
    nothing = DagRunReport(DEMO.dag_id, "run", Path(), xcoms={("combine", -1): ANSWER})
    assert DEMO.wrong(nothing) == ["the preflight has no findings"]
    assert DEMO.preflight(nothing) == []
    assert DEMO.wrong(run()) == ["the preflight has no findings"]


def test_summary_has_a_line_for_each_finding() -> None:
    heading, *lines = DEMO.preflight(run(Status.PASS, Status.COULD_NOT_CHECK))
    assert heading == "Preflight of p in us-central1: could_not_check"
    assert lines == [
        "  pass             quota  metric-0  so it is",
        "  could_not_check  quota  metric-1  so it is",
    ]
