"""The report: its order, its JSON, its table; and what a spec needs of a project."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, NodeImages, PscIConfig, Resources
from airflow_provider_vertex_ray.core.preflight.report import CHECKS, Finding, Report, Status, choose_checks
from airflow_provider_vertex_ray.core.preflight.requirements import (
    PreflightRequest,
    advised_services,
    member_of,
    required_services,
    roles_for,
)
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from tests.support.ids import case_id

TEXTS = st.text(max_size=60)
FINDINGS = st.builds(Finding, st.sampled_from(CHECKS), st.sampled_from(Status), TEXTS, TEXTS, TEXTS)
REPORTS = st.builds(Report, st.just("p"), st.just("us-central1"), st.lists(FINDINGS, max_size=8).map(tuple))


def report(*statuses: Status) -> Report:
    return Report("p", "us-central1", tuple(Finding("quota", status, "s", "f") for status in statuses))


@pytest.mark.parametrize(
    ("statuses", "worst"),
    [
        ([], Status.PASS),
        ([Status.PASS, Status.PASS], Status.PASS),
        ([Status.PASS, Status.WARN], Status.WARN),
        ([Status.COULD_NOT_CHECK, Status.WARN], Status.COULD_NOT_CHECK),
        ([Status.COULD_NOT_CHECK, Status.FAIL, Status.PASS], Status.FAIL),
    ],
)
def test_the_worst_finding_counts(statuses: list[Status], worst: Status) -> None:
    assert report(*statuses).worst is worst


def test_the_json_says_all() -> None:
    found = Finding("apis", Status.FAIL, "compute.googleapis.com", "disabled", "gcloud services enable it")
    data = json.loads(json.dumps(Report("p", "us-central1", (found,)).to_dict()))
    assert data == {
        "worst": "fail",
        "counts": {"fail": 1, "could_not_check": 0, "warn": 0, "pass": 0},
        "findings": [
            {
                "check": "apis",
                "status": "fail",
                "subject": "compute.googleapis.com",
                "found": "disabled",
                "remedy": "gcloud services enable it",
            }
        ],
        "project_id": "p",
        "location": "us-central1",
    }


@given(REPORTS)
def test_the_columns_of_the_table_line_up(found: Report) -> None:
    lines = found.table()
    starts = [lines[0].index(heading) for heading in ("status", "check", "subject", "found")]
    assert starts[0] == 0
    rows = [line for line in lines[1:] if not line.startswith(" ")]
    remedies = [line for line in lines[1:] if line.startswith(" ")]
    assert len(rows) == len(found.findings)
    for finding, line in zip(found.findings, rows, strict=True):
        cells = [line[begin:end].rstrip() for begin, end in zip(starts, [*starts[1:], None], strict=True)]
        assert cells[:2] == [finding.status.value, finding.check]
        # A gap before each column.
        assert all(line[begin - 2 : begin] == "  " for begin in starts[1:])
        assert cells[2].split() == cells[2].split(" ") or cells[2] == ""
    assert all(line.isprintable() for line in lines)
    assert all(line.strip().startswith("-> ") for line in remedies)
    assert len(remedies) == sum(
        any(letter.isprintable() and not letter.isspace() for letter in finding.remedy) for finding in found.findings
    )


def test_a_text_with_breaks_takes_one_line() -> None:
    found = Report("p", "r", (Finding("quota", Status.FAIL, "a\tb", "one\r\ntwo\x1b[31m", "do\nit"),))
    assert found.table() == [
        "status  check  subject  found",
        "fail    quota  a b      one two [31m",
        "        -> do it",
    ]


def test_the_checks_that_are_asked_for_come_in_their_order() -> None:
    assert choose_checks(None) == CHECKS
    assert choose_checks(["quota", "apis", "quota"]) == ("apis", "quota")


@pytest.mark.parametrize("checks", ["quota", [], ["quotas"], 3, [None]])
def test_unknown_checks_are_rejected(checks: object) -> None:
    with pytest.raises(InvalidArgumentError, match="^Invalid value for checks: ") as caught:
        choose_checks(checks)  # type: ignore[arg-type]
    assert "encryption_key" in str(caught.value)


NETWORK = "projects/1/global/networks/vpc"
KEY = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
AI, STORAGE = "aiplatform.googleapis.com", "storage.googleapis.com"


@pytest.mark.parametrize(
    ("fields", "more", "services"),
    [
        ({}, {}, {AI}),
        ({"network": NETWORK}, {}, {AI, "compute.googleapis.com", "servicenetworking.googleapis.com"}),
        ({"psc_interface_config": PscIConfig("att")}, {}, {AI, "compute.googleapis.com"}),
        ({"custom_images": NodeImages("a/b/c", "a/b/c")}, {}, {AI, "artifactregistry.googleapis.com"}),
        (
            {"worker_node_types": [Resources("n1-standard-8", custom_image="a/b/c")]},
            {},
            {AI, "artifactregistry.googleapis.com"},
        ),
        ({"encryption_spec_key_name": KEY}, {}, {AI, "cloudkms.googleapis.com"}),
        ({}, {"bucket": "gs://b"}, {AI, STORAGE}),
        ({}, {"lease_uri": "gs://b/leases"}, {AI, STORAGE}),
    ],
    ids=case_id,
)
def test_the_apis_follow_from_the_spec(fields: dict[str, object], more: dict[str, str], services: set[str]) -> None:
    asked = PreflightRequest("p", "us-central1", ClusterSpec(**fields), **more)  # type: ignore[arg-type]
    assert set(required_services(asked)) == services


def test_monitoring_apis_are_advised_only() -> None:
    quiet = ClusterSpec(enable_logging=False, enable_metrics_collection=False)
    assert advised_services(PreflightRequest("p", "us-central1", quiet)) == {}
    assert len(advised_services(PreflightRequest("p", "us-central1", ClusterSpec()))) == 2


def test_a_wide_role_stands_for_the_narrow_one() -> None:
    create, get = "aiplatform.persistentResources.create", "aiplatform.persistentResources.get"
    assert roles_for([get]) == ["roles/aiplatform.user"]
    assert roles_for([create, get]) == ["roles/aiplatform.admin"]
    assert roles_for(["unknown.thing.get"]) == []


def test_accounts_as_members() -> None:
    assert member_of("me@p.iam.gserviceaccount.com") == "serviceAccount:me@p.iam.gserviceaccount.com"
    assert member_of("me@example.com") == "user:me@example.com"
    assert member_of(None) == member_of("default") == "PRINCIPAL"
