"""A cluster that is created: waited for, explained when it fails, and not left behind."""

from __future__ import annotations

from typing import Any

import pytest
from emulator_support.process import EmulatorProcess, until

from airflow_provider_vertex_ray.errors import (
    ClusterExistsError,
    ClusterFailedError,
    DashboardNotReadyError,
    NetworkExhaustedError,
    NotAuthorisedError,
    ProvisioningTimeoutError,
    QuotaExceededError,
    StockoutError,
    VertexRayError,
)
from airflow_provider_vertex_ray.links.base import LINK_KEY
from airflow_provider_vertex_ray.operators.owner_labels import OWNER_LABEL, label_value
from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterReadyTrigger
from tests.operators.builders import create
from tests.support.clusters import LOCATION, SPEC, cluster_ids, full_name, page_of, start, stuck_until_a_delete
from tests.support.tasks import TaskInstance, context_of, deferral_of, run_task


def creates(emulator: EmulatorProcess) -> list[int]:
    """The status of each answer to a create."""
    return [call["status"] for call in emulator.calls("CreatePersistentResource")]


def test_the_result_is_a_running_cluster(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    operator = create(deferrable=deferrable)
    context = context_of(operator)
    result = run_task(operator, context)
    assert (result["cluster_id"], result["state"], result["node_count"]) == ("made", "RUNNING", 3)
    assert result["location"] == LOCATION
    assert {pool["machine_type"]: pool["replicas"] for pool in result["pools"].values()} == {
        "n1-standard-16": 1,
        "n1-standard-8": 2,
    }
    found = fake_emulator.api("GET", "persistentResources/made")[1]
    dashboard = found["resourceRuntime"]["accessUris"]["RAY_DASHBOARD_URI"]
    page = page_of(fake_emulator, "made")
    assert result["dashboard_url"] == page
    assert context["ti"].xcoms[LINK_KEY] == {
        "project_id": result["project_id"],
        "location": LOCATION,
        "cluster_id": "made",
        "dashboard_uri": page,
        "emulator": fake_emulator.host,
        "shell_uri": f"https://{dashboard}/shell",
    }
    assert result["shell_url"] == f"https://{dashboard}/shell"


def test_labels_say_whose_it_is(fake_emulator: EmulatorProcess) -> None:
    operator = create(deferrable=False, spec=SPEC.with_labels({"team": "tea"}))
    run_task(operator, context_of(operator, TaskInstance("create", dag_id="My DAG", run_id="manual__2026-01-01T00:00")))
    labels = fake_emulator.api("GET", "persistentResources/made")[1]["labels"]
    assert labels["team"] == "tea"
    assert labels["airflow-dag"] == "my-dag"
    assert labels["airflow-run"] == "manual__2026-01-01t00-00"
    assert labels["airflow-task"] == "create"
    assert labels["vertex-ray-spec"] == SPEC.spec_hash()
    assert len(labels[OWNER_LABEL]) == 16


def test_label_values_keep_to_the_service_s_rule() -> None:
    assert label_value("--Ünï Code__") == "n-code"
    assert label_value("a" * 80) == "a" * 63
    assert label_value("a" * 62 + "-b") == "a" * 62


def test_a_deferral_carries_all_that_is_needed(fake_emulator: EmulatorProcess) -> None:
    deferral = deferral_of(create(deferrable=True, provision_timeout=77))
    assert isinstance(deferral.trigger, VertexRayClusterReadyTrigger)
    # Airflow's own expiry of a deferral would call nothing that cleans up: the deadline is the trigger's.
    assert deferral.timeout is None
    assert not deferral.kwargs
    arguments = deferral.trigger.serialize()[1]
    assert arguments["cluster_name"] == full_name("made")
    assert arguments["operation"]
    assert 0 < arguments["deadline"] - arguments["created_at"] <= 77


def test_templates_are_rendered(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    spec = {
        "worker_node_types": [{"machine_type": "{{ machine }}", "node_count": 1}],
        "labels": {"run": "{{ day }}"},
    }
    operator = create("etl-{{ day }}", spec=spec, location="{{ region }}", deferrable=deferrable)
    result = run_task(operator, context_of(operator, day="d7", machine="n1-standard-8", region="europe-west4"))
    assert result["cluster_id"] == "etl-d7"
    assert result["location"] == "europe-west4"
    assert result["labels"]["run"] == "d7"
    assert "n1-standard-8" in [pool["machine_type"] for pool in result["pools"].values()]


def test_a_dashboard_that_answers_503_at_first_is_waited_for(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    with fake_emulator.fault(scope="dashboard", method="GET /api/version", status=503, times=3):
        assert run_task(create(deferrable=deferrable))["state"] == "RUNNING"
    answers = [call["status"] for call in fake_emulator.calls("GET /api/version")]
    assert answers[-4:] == [503, 503, 503, 200]
    assert set(answers[:-4]) <= {524, 401, 403}


def test_a_dashboard_that_stays_silent(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    fault = {"scope": "dashboard", "method": "GET /api/version", "status": 503, "times": None}
    with fake_emulator.fault(**fault), pytest.raises(DashboardNotReadyError, match="made is RUNNING"):
        run_task(create(deferrable=deferrable, dashboard_timeout=0.1))
    assert cluster_ids(fake_emulator) == []


OUTCOMES = [
    ("quota", QuotaExceededError, "CustomModelTrainingCPUsPerProjectPerRegion"),
    ("stockout", StockoutError, "us-central1 does not have enough resources available"),
    ("internal", ClusterFailedError, "An internal error occurred on your cluster"),
    ("ip_ranges", NetworkExhaustedError, "Couldn't find free blocks in allocated IP ranges"),
]


@pytest.mark.parametrize(("outcome", "kind", "text"), OUTCOMES)
def test_a_failure_is_typed_and_cleaned_up(
    fake_emulator: EmulatorProcess, deferrable: bool, outcome: str, kind: type[VertexRayError], text: str
) -> None:
    with fake_emulator.fault(scope="provisioning", outcome=outcome), pytest.raises(VertexRayError) as caught:
        run_task(create(deferrable=deferrable))
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert "made" in str(caught.value)
    assert str(caught.value).endswith(kind.remedy)
    assert cluster_ids(fake_emulator) == []


@pytest.mark.parametrize("outcome", ["quota", "internal"])
def test_a_failed_cluster_is_left_when_that_is_asked_for(
    fake_emulator: EmulatorProcess, deferrable: bool, outcome: str
) -> None:
    fault = {"scope": "provisioning", "outcome": outcome}
    with fake_emulator.fault(**fault), pytest.raises((QuotaExceededError, ClusterFailedError)):
        run_task(create(deferrable=deferrable, delete_on_failure=False))
    # What a failed create leaves behind is PROVISIONING at first.
    until(lambda: fake_emulator.api("GET", "persistentResources/made")[1]["state"] == "ERROR")
    assert fake_emulator.calls("DeletePersistentResource") == []


def test_a_clean_up_that_fails_is_said_beside_the_reason(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    refused = {"scope": "control_plane", "method": "DeletePersistentResource", "code": "PERMISSION_DENIED"}
    with (
        fake_emulator.fault(scope="provisioning", outcome="stockout"),
        fake_emulator.fault(**refused, times=None),
        pytest.raises(StockoutError, match=r"does not have enough resources(.|\n)*The clean-up failed: injected"),
    ):
        run_task(create(deferrable=deferrable))


def test_provisioning_that_takes_too_long(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    # The service deletes nothing while it is PROVISIONING: the clean-up has to wait until that is over.
    with (
        stuck_until_a_delete(fake_emulator, "made"),
        pytest.raises(ProvisioningTimeoutError, match="its state is PROVISIONING"),
    ):
        run_task(create(deferrable=deferrable, provision_timeout=0.1))
    assert cluster_ids(fake_emulator) == []
    answers = [call["status"] for call in fake_emulator.calls("DeletePersistentResource")]
    assert answers[0] == 400
    assert answers[-1] == 200


def test_a_retry_goes_on_with_its_own_cluster(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    # The first try is lost after the create: it never hears of the cluster's end.
    deferral_of(create(deferrable=True))
    result = run_task(create(deferrable=deferrable))
    assert result["state"] == "RUNNING"
    assert creates(fake_emulator) == [200, 409]
    assert cluster_ids(fake_emulator) == ["made"]


def test_a_create_whose_answer_was_lost(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    fault = {"scope": "control_plane", "method": "CreatePersistentResource", "action": "drop_response"}
    with fake_emulator.fault(**fault):
        assert run_task(create(deferrable=deferrable))["state"] == "RUNNING"
    assert len(creates(fake_emulator)) == 1


def test_another_run_s_cluster_is_not_adopted(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    first = create(deferrable=False)
    run_task(first, context_of(first, TaskInstance("create", run_id="yesterday")))
    with pytest.raises(
        ClusterExistsError, match=r"cluster_id='made': .*It is RUNNING, created .* by DAG dag, task creat"
    ):
        run_task(create(deferrable=deferrable))
    assert cluster_ids(fake_emulator) == ["made"]


def test_somebody_else_s_cluster_is_not_adopted_and_not_deleted(
    fake_emulator: EmulatorProcess, deferrable: bool
) -> None:
    start(fake_emulator, "made")
    operator = create(deferrable=deferrable)
    context = context_of(operator)
    with pytest.raises(ClusterExistsError, match="cluster_id='made': .*It is RUNNING"):
        run_task(operator, context)
    assert cluster_ids(fake_emulator) == ["made"]
    # A task that deletes what this one has made finds nothing to delete.
    assert context["ti"].xcoms["cluster_id"] == ""
    assert fake_emulator.calls("DeletePersistentResource") == []


def test_the_id_of_a_deleted_cluster(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator, "made")
    fake_emulator.wait(fake_emulator.api("DELETE", "persistentResources/made")[1])
    assert run_task(create(deferrable=deferrable))["cluster_id"] == "made-2"


def test_a_create_that_is_not_allowed(fake_emulator: EmulatorProcess) -> None:
    fault = {"scope": "control_plane", "method": "CreatePersistentResource", "code": "PERMISSION_DENIED"}
    with fake_emulator.fault(**fault), pytest.raises(NotAuthorisedError, match=r"roles/aiplatform\.admin"):
        run_task(create(deferrable=False))
    assert cluster_ids(fake_emulator) == []


def test_on_kill_deletes_what_this_task_started(fake_emulator: EmulatorProcess) -> None:
    operator = create(deferrable=False)
    run_task(operator)
    operator.on_kill()
    until(lambda: cluster_ids(fake_emulator) == [], what="the cluster is still there")


@pytest.mark.parametrize("more", [{"delete_on_failure": False}, {}], ids=["kept", "nothing-started"])
def test_on_kill_deletes_nothing_else(fake_emulator: EmulatorProcess, more: dict[str, Any]) -> None:
    operator = create(deferrable=False, **more)
    if more:
        run_task(operator)
    else:
        start(fake_emulator, "made")
    operator.on_kill()
    assert fake_emulator.calls("DeletePersistentResource") == []
    assert cluster_ids(fake_emulator) == ["made"]


def test_on_kill_while_provisioning_says_that_it_will_cost_money(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = create(deferrable=True)
    said: list[str] = []
    monkeypatch.setattr(operator.log, "error", lambda text, *values: said.append(text % values))
    with fake_emulator.fault(scope="provisioning", outcome="stuck"):
        deferral_of(operator)
        operator.on_kill()
    assert any("Could not delete cluster" in line and "it will incur charges" in line for line in said)
