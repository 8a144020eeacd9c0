"""Prices for cost estimates, as DAG authors import them."""

from __future__ import annotations

from airflow_provider_vertex_ray.core.cost.price_table import NodeKind, PriceTable

__all__ = ["NodeKind", "PriceTable"]
