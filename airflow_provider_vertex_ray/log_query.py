"""Queries of a cluster's logs in Cloud Logging, as DAG authors import them."""

from __future__ import annotations

from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery

__all__ = ["LogQuery"]
