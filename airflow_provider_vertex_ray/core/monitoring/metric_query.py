"""Named metrics of a cluster, as PromQL.

Names and labels of the series are Ray's
(https://docs.ray.io/en/releases-2.47.1/ray-observability/reference/system-metrics.html); the label ``cluster`` is
Vertex AI's (docs/service-facts.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from airflow_provider_vertex_ray.core.checks import has_template, is_carried, is_one_of
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["METRICS", "UNITS", "check_metric", "check_promql", "metric_queries", "metric_query", "selector"]

LONGEST_QUERY = 20_000


def _label_value(text: str) -> str:
    """Return a text as the value of a label in PromQL, escaped as in Go."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def selector(metric: str, cluster_id: str, **more: str) -> str:
    """Return the PromQL selector of a metric of one cluster.

    :param metric: name of the metric
    :param cluster_id: id of the cluster
    :param more: values of further labels; one with ``=~`` in front is a regular expression, as in
        ``State='=~RUNNING.*'``
    """
    labels = [f"cluster={_label_value(cluster_id)}"]
    for name, wanted in more.items():
        operator = "=~" if wanted.startswith("=~") else "="
        labels.append(f"{name}{operator}{_label_value(wanted.removeprefix('=~'))}")
    return f"{metric}{{{','.join(labels)}}}"


def _or_zero(query: str, cluster_id: str) -> str:
    """Return a query that gives 0 if nodes report metrics but Ray exports no series of this kind."""
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
"""PromQL by name; each query gives one series.

``cpu`` and ``gpu`` are the average utilisation of the nodes, and ``memory`` is the share of memory in use, all in
percent and with the head; ``tasks``, ``actors`` and ``nodes`` are the numbers of running tasks, of live actors and of
reporting nodes. A job has a task and an actor of Ray's own."""

UNITS: Mapping[str, str] = {"cpu": "%", "memory": "%", "gpu": "%", "tasks": "", "actors": "", "nodes": ""}


def metric_query(name: str, cluster_id: str, field: str = "metric") -> str:
    """Return the PromQL of a named metric.

    :param name: the metric
    :param cluster_id: id of the cluster
    :param field: name of the argument, for the error
    :raises InvalidArgumentError: the metric does not exist
    """
    check_metric(name, field)
    return METRICS[name](cluster_id)


def metric_queries(metrics: Sequence[str], queries: Mapping[str, str], cluster_id: str) -> dict[str, str]:
    """Return PromQL by name, of named metrics and of the user's own queries.

    :param metrics: names of metrics
    :param queries: the user's own PromQL, by name
    :param cluster_id: id of the cluster
    :raises InvalidArgumentError: a name is unknown or used twice, a query is empty, or there is no query at all
    """
    found = {name: metric_query(name, cluster_id, f"metrics[{place}]") for place, name in enumerate(metrics)}
    for name, promql in queries.items():
        if name in found:
            raise InvalidArgumentError("queries", name, "Use another name; metrics contains this one as well.")
        check_promql(promql, f"queries[{name!r}]")
        found[name] = promql
    if not found:
        raise InvalidArgumentError(
            "metrics", list(metrics), f"Use at least one of {', '.join(METRICS)}, or PromQL in queries."
        )
    return found


def check_metric(name: object, field: str) -> None:
    """Validate the name of a metric; a template passes.

    :raises InvalidArgumentError: the metric does not exist
    """
    if not has_template(name) and not is_one_of(name, METRICS):
        raise InvalidArgumentError(field, name, f"Use one of {', '.join(METRICS)}, or write another metric as PromQL.")


def check_promql(promql: object, field: str) -> None:
    """Validate that a query is a non-empty string of acceptable length; the service itself validates the PromQL.

    :raises InvalidArgumentError: it is not
    """
    if not is_carried(promql) or not promql.strip():
        raise InvalidArgumentError(field, promql, 'Use PromQL, such as avg(ray_node_cpu_utilization{cluster="ID"}).')
    if len(promql) > LONGEST_QUERY:
        raise InvalidArgumentError(field, promql, f"Use at most {LONGEST_QUERY} characters.")
