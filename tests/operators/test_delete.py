"""A cluster that is deleted: until it is gone, and it is no error that it was gone."""

from __future__ import annotations

import pytest
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.errors import (
    LeaseHeldError,
    NotAuthorisedError,
    OperationTimeoutError,
)
from airflow_provider_vertex_ray.links.base import LINK_KEY
from tests.operators.builders import delete
from tests.support.clusters import BODY, cluster_ids, full_name, start, stuck_until_a_delete
from tests.support.leases import hold, lease_of, release
from tests.support.meanwhile import meanwhile
from tests.support.tasks import context_of, run_task


def deletes(emulator: EmulatorProcess) -> list[int]:
    """The status of each answer to a delete."""
    return [call["status"] for call in emulator.calls("DeletePersistentResource")]


def begin(emulator: EmulatorProcess, cluster_id: str) -> None:
    """A cluster that is not waited for."""
    assert emulator.api("POST", f"persistentResources?persistentResourceId={cluster_id}", BODY)[0] == 200


def test_it_is_gone_when_the_task_ends(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    start(fake_emulator, "other")
    operator = delete("{{ name }}", deferrable=deferrable)
    context = context_of(operator, name="shared")
    assert run_task(operator, context) == {"cluster_id": "shared", "name": full_name("shared"), "existed": True}
    assert fake_emulator.api("GET", "persistentResources/shared")[0] == 404
    assert cluster_ids(fake_emulator) == ["other"]
    assert deletes(fake_emulator) == [200]
    facts = {"project_id": fake_emulator.project, "location": "us-central1", "cluster_id": "shared"}
    assert context["ti"].xcoms[LINK_KEY] == {**facts, "emulator": fake_emulator.host}


def test_one_that_is_not_there(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    assert run_task(delete("shared", deferrable=deferrable))["existed"] is False
    assert deletes(fake_emulator) == []


def test_twice(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    results = [run_task(delete("shared", deferrable=deferrable)) for _ in range(2)]
    assert [result["existed"] for result in results] == [True, False]


def test_one_in_error(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="internal"):
        assert fake_emulator.create("shared", BODY)["state"] == "ERROR"
    assert run_task(delete("shared", deferrable=deferrable))["existed"] is True
    assert cluster_ids(fake_emulator) == []


def test_provisioning_is_waited_out(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    with stuck_until_a_delete(fake_emulator, "shared"):
        begin(fake_emulator, "shared")
        assert run_task(delete("shared", deferrable=deferrable))["existed"] is True
    assert cluster_ids(fake_emulator) == []
    assert deletes(fake_emulator)[0] == 400
    assert deletes(fake_emulator)[-1] == 200


def test_a_delete_that_is_under_way_is_waited_for(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    # A fault of a delete has to name it.
    fault = {"scope": "provisioning", "method": "DeletePersistentResource", "outcome": "stuck"}

    def end() -> None:
        fake_emulator.admin("DELETE", "clusters/shared")

    with fake_emulator.fault(**fault):
        assert fake_emulator.api("DELETE", "persistentResources/shared")[0] == 200
        fake_emulator.admin("DELETE", "calls")
        with meanwhile(end, lambda: len(fake_emulator.calls("GetPersistentResource")) >= 2):
            assert run_task(delete("shared", deferrable=deferrable))["existed"] is True
    assert deletes(fake_emulator) == []
    assert cluster_ids(fake_emulator) == []


def test_a_deadline_while_it_provisions(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="stuck"):
        begin(fake_emulator, "shared")
        with pytest.raises(OperationTimeoutError, match="Vertex AI rejected its deletion.*It may still incur charges"):
            run_task(delete("shared", deferrable=deferrable, delete_timeout=0.1))


def test_a_deadline_while_it_stops(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    fault = {"scope": "provisioning", "method": "DeletePersistentResource", "outcome": "stuck"}
    with (
        fake_emulator.fault(**fault),
        pytest.raises(OperationTimeoutError, match="to be deleted; its deletion continues"),
    ):
        run_task(delete("shared", deferrable=deferrable, delete_timeout=0.1))


def test_a_service_that_is_away_for_a_moment(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    with fake_emulator.fault(scope="control_plane", method="*PersistentResource", status=503, times=2):
        assert run_task(delete("shared", deferrable=deferrable))["existed"] is True
    assert cluster_ids(fake_emulator) == []


def test_one_that_is_not_allowed(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    fault = {"scope": "control_plane", "method": "DeletePersistentResource", "code": "PERMISSION_DENIED"}
    with fake_emulator.fault(**fault), pytest.raises(NotAuthorisedError):
        run_task(delete("shared", deferrable=deferrable))


def test_what_others_hold_is_not_deleted(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, deferrable: bool
) -> None:
    start(fake_emulator)
    hold(storage, "other/run")
    with pytest.raises(LeaseHeldError, match="other/run"):
        run_task(delete("shared", deferrable=deferrable, lease_uri=storage.uri))
    assert cluster_ids(fake_emulator) == ["shared"]
    release(storage, "other/run")
    # Another run of the same owner is a reason, however similar its name.
    hold(storage, "team-x", scope="dag/run-10/ensure")
    with pytest.raises(LeaseHeldError, match="team-x"):
        run_task(delete("shared", deferrable=deferrable, lease_uri=storage.uri))
    release(storage, "team-x")
    hold(storage, "dag/run-1", scope="group")
    hold(storage, "team-x", scope="dag/run-1/ensure")
    # This run's own holds are no reason.
    assert run_task(delete("shared", deferrable=deferrable, lease_uri=storage.uri))["existed"] is True
    assert storage.names() == []
    assert run_task(delete("shared", deferrable=deferrable, lease_uri=storage.uri))["existed"] is False


def test_a_deletion_that_fails_opens_the_lease_again(fake_emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    start(fake_emulator)
    refusal = {"scope": "control_plane", "method": "Delete*", "action": "status", "status": 403}
    with fake_emulator.fault(**refusal), pytest.raises(NotAuthorisedError):
        run_task(delete("shared", deferrable=False, lease_uri=storage.uri))
    assert lease_of(storage).closing is None
    hold(storage, "other/run")
