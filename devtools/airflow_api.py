"""Perform user actions in Airflow through the REST API that its user interface uses."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

# A proxy from the environment must never be asked for an address of this machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class AirflowApiError(RuntimeError):
    """The API rejected a request, or did not answer."""


class AirflowApi:
    """The stable REST API: ``/api/v2`` of Airflow 3, ``/api/v1`` of 2.11.

    :param web_url: address of the API server (web server on 2.11).
    :param major: Airflow's major version.
    """

    def __init__(self, web_url: str, major: int) -> None:
        self._web_url = web_url
        self._major = major

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """Start a DAG run."""
        body: dict[str, Any] = {"dag_run_id": run_id, "conf": conf}
        if self._major >= 3:
            body["logical_date"] = None
        self._call("POST", f"dags/{dag_id}/dagRuns", body)

    def mark_task(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark a task ``failed`` or ``success``."""
        body: dict[str, Any] = {"new_state": state}
        if self._major < 3:
            body["dry_run"] = False
        self._call("PATCH", f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}", body)

    def clear_task(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear a task, whatever its state, so that it runs again."""
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False}
        self._call("POST", f"dags/{dag_id}/clearTaskInstances", {**body, "reset_dag_runs": True})

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG."""
        self._call("PATCH", f"dags/{dag_id}", {"is_paused": False})

    def _call(self, method: str, path: str, body: dict[str, Any]) -> None:
        token = self._request("GET", "/auth/token", None, None)["access_token"] if self._major >= 3 else None
        self._request(method, f"/api/v{2 if self._major >= 3 else 1}/{path}", body, token)

    def _request(self, method: str, path: str, body: dict[str, Any] | None, token: str | None) -> dict[str, Any]:
        request = urllib.request.Request(self._web_url + path, method=method)
        request.add_header("Accept", "application/json")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with OPENER.open(request, timeout=60) as answer:
                result: dict[str, Any] = json.load(answer)
                return result
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise AirflowApiError(f"{method} {path}: {error.code} {text}") from error
        except OSError as error:
            raise AirflowApiError(f"{method} {path}: {error}") from error
