"""Client of the Cloud Billing Catalog: list prices of Vertex AI training, as a price table.

Source: https://cloud.google.com/billing/docs/reference/rest/v1/services.skus/list; the descriptions are those published
in 2026 (docs/cost.md). It is not documented which of them apply to Ray clusters, and prices were never compared with a
real bill.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from functools import partial

from airflow_provider_vertex_ray.core.cost.answers import SkuAnswer, SkuPage
from airflow_provider_vertex_ray.core.cost.price_table import PriceTable
from airflow_provider_vertex_ray.core.http.decoding import whole
from airflow_provider_vertex_ray.core.http.paging import PageTokens
from airflow_provider_vertex_ray.core.http.service_errors import answer_error
from airflow_provider_vertex_ray.core.http.transport import Transport

SERVICE = "C7E2-9256-1C43"
"""Id of Vertex AI in the catalog."""

PREFIXES = ("Vertex AI: Training/Pipelines on",)
"""Prefixes of the descriptions of applicable SKUs, before the machine family or the accelerator."""

MAX_PAGE_BYTES = 16 << 20
"""Maximum size of a page of the catalog in bytes."""

KEPT_SECONDS = 86_400.0
"""Seconds for which the prices of a region are cached in this process; they change a few times a year."""

_CORE = re.compile(r"\W*([\w -]+?) (?:Predefined )?(?:AMD )?Instance (Core|Ram)\b", re.IGNORECASE)
_FAMILIES = {"compute optimized": "c2", "memory optimized": "m1"}
"""Machine families that the descriptions do not call by their names."""
_ACCELERATOR = re.compile(r"(NVIDIA [\w ]+?)(?: GPU)?(?: attached| running| in\b|$)", re.IGNORECASE)
_error_from = partial(answer_error, "The Cloud Billing Catalog")
_kept: dict[tuple[str, str, tuple[str, ...], str], tuple[float, PriceTable]] = {}


async def catalog_prices(
    transport: Transport, region: str, *, prefixes: Sequence[str] = PREFIXES, currency: str = "USD"
) -> PriceTable:
    """Return the list prices of a region.

    :param transport: the connection
    :param region: the region
    :param prefixes: prefixes of the SKUs' descriptions. The prices of several prefixes are added up; anything that does
        not have a price under each of them has no price.
    :param currency: ISO 4217 code
    :raises VertexRayError: the catalog cannot be read
    """
    key = (transport.addresses.billing(), region, tuple(prefixes), currency)
    if key in _kept and time.monotonic() - _kept[key][0] < KEPT_SECONDS:
        return _kept[key][1]
    skus = await _skus(transport, currency)
    table = await asyncio.to_thread(table_of, skus, region, prefixes, currency)
    _kept[key] = (time.monotonic(), table)
    return table


async def _skus(transport: Transport, currency: str) -> list[SkuAnswer]:
    url = f"{transport.addresses.billing()}/v1/services/{SERVICE}/skus"
    found: list[SkuAnswer] = []
    tokens = PageTokens()
    token = ""
    while True:
        params = {"pageSize": "2000", "currencyCode": currency, **({"pageToken": token} if token else {})}
        page = await transport.read(
            SkuPage, "GET", url, params=params, error_from=_error_from, max_bytes=MAX_PAGE_BYTES
        )
        found += page.skus or []
        if not (token := tokens.follow(page.next_page_token)):
            return found


def table_of(skus: Sequence[SkuAnswer], region: str, prefixes: Sequence[str], currency: str) -> PriceTable:
    """Return the price table in a list of SKUs; an ambiguous price is left out."""
    sums: dict[str, dict[str, dict[str, float]]] = {}
    for sku in skus:
        text = sku.description or ""
        prefix = next((each for each in prefixes if text.startswith(each)), None)
        price = _price(sku, currency)
        named = _named(text.removeprefix(prefix).strip()) if prefix else None
        if prefix is None or price is None or named is None or region not in (sku.service_regions or []):
            continue
        section, name = named
        by_prefix = sums.setdefault(section, {}).setdefault(name, {})
        # Two prices for the same thing are ambiguous.
        by_prefix[prefix] = price if by_prefix.get(prefix, price) == price else float("nan")
    sections = {
        section: {
            name: sum(by_prefix.values())
            for name, by_prefix in names.items()
            if len(by_prefix) == len(set(prefixes)) and all(price == price for price in by_prefix.values())
        }
        for section, names in sums.items()
    }
    return PriceTable(currency, {region: sections})


def _named(text: str) -> tuple[str, str] | None:
    """Return section and name in a price table for the rest of a description; None if it is something else."""
    if match := _CORE.match(text):
        family = " ".join(match[1].lower().replace("-", " ").split())
        family = _FAMILIES.get(family, family)
        return (("vcpu" if match[2].lower() == "core" else "gib"), family) if " " not in family else None
    if match := _ACCELERATOR.match(text):
        name = re.sub(r"\W+", "_", match[1].strip()).upper()
        # In the Vertex AI API, older accelerators are named NVIDIA_TESLA_….
        older = re.fullmatch(r"NVIDIA_(?:TESLA_)?(T4|V100|P100|P4|A100|K80)", name)
        return "accelerators", f"NVIDIA_TESLA_{older[1]}" if older else name
    return None


def _price(sku: SkuAnswer, currency: str) -> float | None:
    """Return the price of a SKU per hour; None for tiered prices, other units and other currencies."""
    expression = sku.pricing_info[-1].pricing_expression if sku.pricing_info else None
    rates = (expression.tiered_rates if expression else None) or []
    if expression is None or len(rates) != 1 or expression.usage_unit not in ("h", "GiBy.h"):
        return None
    unit = rates[0].unit_price
    if unit is None:
        return 0.0
    if (unit.currency_code or currency) != currency:
        return None
    return whole(unit.units) + whole(unit.nanos) / 1e9
