"""The metrics of a cluster that have a name here, as PromQL.

Names and labels are Ray's (https://docs.ray.io/en/releases-2.47.1/ray-observability/reference/system-metrics.html); the
label ``cluster`` is Vertex AI's (docs/service-facts.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["METRICS", "UNITS", "check_metric", "check_promql", "metric_queries", "metric_query", "selector"]

LONGEST_QUERY = 20_000


def _label_value(text: str) -> str:
    """A text as the value of a label in PromQL, which has the escapes of Go's strings."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def selector(metric: str, cluster_id: str, **more: str) -> str:
    """The series of a metric of one cluster.

    :param more: Labels with what comes before their value, such as ``State='=~RUNNING.*'``.
    """
    labels = [f"cluster={_label_value(cluster_id)}"]
    for name, wanted in more.items():
        operator = "=~" if wanted.startswith("=~") else "="
        labels.append(f"{name}{operator}{_label_value(wanted.removeprefix('=~'))}")
    return f"{metric}{{{','.join(labels)}}}"


def _or_zero(query: str, cluster_id: str) -> str:
    """0 where the nodes report and nothing of this kind is there: then Ray exports no series of it."""
    return f"{query} or 0 * count({selector('ray_node_cpu_utilization', cluster_id)})"


METRICS: Mapping[str, Callable[[str], str]] = {
    "cpu": lambda cluster: f"avg({selector('ray_node_cpu_utilization', cluster)})",
    "memory": lambda cluster: (
        f"100 * sum({selector('ray_node_mem_used', cluster)}) / sum({selector('ray_node_mem_total', cluster)})"
    ),
    "gpu": lambda cluster: f"avg({selector('ray_node_gpus_utilization', cluster)})",
    "tasks": lambda cluster: _or_zero(f"sum({selector('ray_tasks', cluster, State='=~RUNNING.*')})", cluster),
    "actors": lambda cluster: _or_zero(f"sum({selector('ray_actors', cluster, State='ALIVE')})", cluster),
    "nodes": lambda cluster: f"count({selector('ray_node_cpu_utilization', cluster)})",
}
"""Each gives one series: the average utilisation of the nodes' CPUs and of the GPUs, and the share of memory in use, in
percent, with the head; how many tasks run, actors live and nodes report. A job has a task and an actor of Ray's own."""

UNITS: Mapping[str, str] = {"cpu": "%", "memory": "%", "gpu": "%", "tasks": "", "actors": "", "nodes": ""}


def metric_query(name: str, cluster_id: str) -> str:
    """The PromQL of a named metric.

    :raises InvalidArgumentError: There is none of that name.
    """
    check_metric(name, "metric")
    return METRICS[name](cluster_id)


def metric_queries(metrics: Sequence[str], queries: Mapping[str, str], cluster_id: str) -> dict[str, str]:
    """PromQL by name: of named metrics, and a user's own.

    :raises InvalidArgumentError: A name is unknown or used twice, a query is empty, or there is nothing to ask.
    """
    found = {name: metric_query(name, cluster_id) for name in metrics}
    for name, promql in queries.items():
        if name in found:
            raise InvalidArgumentError("queries", name, "this name is in metrics, too")
        check_promql(promql, f"queries[{name!r}]")
        found[name] = promql
    if not found:
        raise InvalidArgumentError(
            "metrics", list(metrics), f"give at least one of {', '.join(METRICS)}, or PromQL in queries"
        )
    return found


def check_metric(name: object, field: str) -> None:
    """Refuse a metric that has no name here; a template passes.

    :raises InvalidArgumentError: Names the field.
    """
    if not has_template(name) and name not in METRICS:
        raise InvalidArgumentError(field, name, f"the metrics are {', '.join(METRICS)}; give anything else as PromQL")


def check_promql(promql: object, field: str) -> None:
    """Refuse what is no text that could be a query; whether it is PromQL, the service says.

    :raises InvalidArgumentError: Names the field.
    """
    if not isinstance(promql, str) or not promql.strip():
        raise InvalidArgumentError(field, promql, 'give a query, such as avg(ray_node_cpu_utilization{cluster="ID"})')
    if len(promql) > LONGEST_QUERY:
        raise InvalidArgumentError(field, promql, f"give at most {LONGEST_QUERY} characters")
