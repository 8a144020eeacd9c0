"""Google's discovery clients and Cloud Logging's client, connected to the emulator, and jobs to query."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.oauth2.credentials import Credentials

from emulator_support.process import EmulatorProcess, until

if TYPE_CHECKING:
    from google.cloud.logging import Client


def discovery(emulator: EmulatorProcess, name: str, version: str) -> Any:
    """Return a client for the API's discovery document that ``googleapiclient`` ships."""
    from googleapiclient.discovery import build

    # The endpoint replaces the document's rootUrl and servicePath together.
    path = "/compute/v1/" if name == "compute" else ""
    return build(
        name,
        version,
        credentials=Credentials(emulator.token()),
        static_discovery=True,
        client_options={"api_endpoint": f"http://{emulator.host}{path}"},
    )


def logging_client(emulator: EmulatorProcess) -> Client:
    """Return Cloud Logging's client in HTTP mode."""
    import google.cloud.logging

    return google.cloud.logging.Client(
        project=emulator.project,
        credentials=Credentials(emulator.token()),
        _use_grpc=False,
        client_options={"api_endpoint": f"http://{emulator.host}"},
    )


def run_job(emulator: EmulatorProcess, cluster_id: str, submission_id: str, entrypoint: str) -> None:
    """Run a job on a cluster to its end."""
    jobs = _dashboard(emulator, cluster_id) + "/api/jobs/"
    token = emulator.token()
    body = {"entrypoint": entrypoint, "submission_id": submission_id}
    status, answer = emulator.request("POST", jobs, body, token=token)
    assert status == 200, answer

    def ended() -> bool:
        status, job = emulator.request("GET", jobs + submission_id, token=token)
        assert status == 200, job
        return job["status"] in ("SUCCEEDED", "FAILED", "STOPPED")

    until(ended, f"{submission_id} has not ended")


def _dashboard(emulator: EmulatorProcess, cluster_id: str) -> str:
    cluster = emulator.api("GET", f"persistentResources/{cluster_id}")[1]
    return "/" + str(cluster["resourceRuntime"]["accessUris"]["RAY_DASHBOARD_URI"]).rsplit("/", 1)[1]


def of_cluster(cluster_id: str, more: str = "") -> str:
    """Return the documented filter for a cluster's entries."""
    parts = [
        'resource.labels.task_name="ray-cluster-logs"',
        f'labels."ml.googleapis.com/ray_cluster_id"="{cluster_id}"',
        more,
    ]
    return "\n".join(filter(None, parts))


def list_entries(emulator: EmulatorProcess, **body: Any) -> tuple[int, Any]:
    """Send an ``entries:list`` request."""
    request = {"resourceNames": [f"projects/{emulator.project}"], **body}
    return emulator.request("POST", "/v2/entries:list", request, token=emulator.token())


def messages(answer: Any) -> list[str]:
    """Return the texts of the entries in an answer."""
    return [entry["jsonPayload"]["message"] for entry in answer.get("entries", [])]


def http_error(error: Any) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of a discovery client's error."""
    return int(error.resp.status), dict(json.loads(error.content)["error"])
