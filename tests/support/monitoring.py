"""Logs and metrics on the emulator that tests of several kinds want."""

from __future__ import annotations

from typing import Any

from emulator_support.process import EmulatorProcess, until

from airflow_provider_vertex_ray.log_query import LogQuery

OF_JOB = LogQuery("shared", submission_id="one")


def listed(emulator: EmulatorProcess, count: int, query: LogQuery = OF_JOB) -> None:
    """Return when the emulator has so many entries; none of these calls is in its log."""
    body = {"resourceNames": [f"projects/{emulator.project}"], "filter": query.filter(), "pageSize": 1000}

    def there() -> bool:
        status, answer = emulator.request("POST", "/v2/entries:list", body, token=emulator.token())
        assert status == 200, answer
        return len(answer.get("entries", ())) >= count

    until(there, f"there are no {count} entries")
    emulator.admin("DELETE", "calls")


def measured(emulator: EmulatorProcess, cluster_id: str = "shared", **metrics: Any) -> None:
    """Set a cluster's metrics: a number, or a list as the emulator takes it."""
    emulator.admin("PUT", f"clusters/{cluster_id}/metrics", metrics)


def been(value: float, seconds: float, **labels: str) -> dict[str, Any]:
    """A series that has had this value for so long."""
    return {"labels": labels, "value": value, "for_seconds": seconds}
