"""Models of the Cloud Billing Catalog (https://cloud.google.com/billing/docs/reference/rest/v1/services.skus)."""

from __future__ import annotations

import msgspec

from airflow_provider_vertex_ray.core.http.decoding import Int64

__all__ = ["SkuAnswer", "SkuPage"]


class _MoneyAnswer(msgspec.Struct, rename="camel"):
    currency_code: str | None = None
    units: Int64 | None = None
    nanos: Int64 | None = None


class _RateAnswer(msgspec.Struct, rename="camel"):
    unit_price: _MoneyAnswer | None = None


class _ExpressionAnswer(msgspec.Struct, rename="camel"):
    usage_unit: str | None = None
    tiered_rates: list[_RateAnswer] | None = None


class _PricingAnswer(msgspec.Struct, rename="camel"):
    pricing_expression: _ExpressionAnswer | None = None


class SkuAnswer(msgspec.Struct, rename="camel"):
    """A SKU with its prices."""

    description: str | None = None
    service_regions: list[str] | None = None
    pricing_info: list[_PricingAnswer] | None = None


class SkuPage(msgspec.Struct, rename="camel"):
    """A page of SKUs."""

    skus: list[SkuAnswer] | None = None
    next_page_token: str | None = None
