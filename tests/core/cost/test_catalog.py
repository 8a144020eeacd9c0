"""The Cloud Billing Catalog as it is documented; a server of our own answers, as the real one can not be asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from airflow_provider_vertex_ray.core.cost import catalog as price_catalog
from airflow_provider_vertex_ray.core.cost.answers import SkuAnswer
from airflow_provider_vertex_ray.core.cost.catalog import catalog_prices, table_of
from airflow_provider_vertex_ray.core.http.decoding import check_shape
from airflow_provider_vertex_ray.errors import NotAuthorisedError, ServiceError
from airflow_provider_vertex_ray.price_table import NodeKind
from tests.support.server import serving, transport_to

REGION = "us-central1"


def sku(description: str, nanos: int, *, units: str = "0", regions: tuple[str, ...] = (REGION,), **more: Any) -> Any:
    rate = {"unitPrice": {"currencyCode": "USD", "units": units, "nanos": nanos}}
    expression = {"usageUnit": "h", "tieredRates": [rate], **more}
    return {
        "description": description,
        "serviceRegions": list(regions),
        "pricingInfo": [{"pricingExpression": expression}],
    }


P = "Vertex AI: Training/Pipelines on"
SKUS = [
    sku(f"{P} N1 Predefined Instance Core running in Americas", 36_353_000),
    sku(f"{P} N1 Predefined Instance Ram running in Americas", 4_872_000, usageUnit="GiBy.h"),
    sku(f"{P} NVIDIA T4 in Americas", 402_500_000),
    sku(f"{P} NVIDIA H100 80GB in Americas", 288_000_000, units="11"),
    sku(f"{P} N1 Predefined Instance Core running in Zurich", 1, regions=("europe-west6",)),
    sku("Vertex AI: Online Prediction on N1 Predefined Instance Core", 1),
    sku(f"{P} E2 Instance Core running in Americas", 1),
    sku(f"{P} E2 Instance Core running in Americas", 2),
    sku(f"{P} N2 Instance Core running in Americas", 1, tieredRates=[]),
]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    price_catalog._kept.clear()
    yield
    price_catalog._kept.clear()


def read(skus: list[Any]) -> list[SkuAnswer]:
    return [check_shape(each, SkuAnswer) for each in skus]


def page(skus: list[Any], token: str = "") -> web.Response:
    return web.json_response({"skus": skus, "nextPageToken": token})


async def test_prices_come_from_all_pages_also_after_a_502() -> None:
    async with serving(page(SKUS[:3], "next"), web.Response(status=502), page(SKUS[3:])) as server:
        async with transport_to(server) as transport:
            table = await catalog_prices(transport, REGION)
            again = await catalog_prices(transport, REGION)
        paths = [path for _, path, _, _ in server.requests]
    assert again is table
    assert [("pageToken=next" in path, "pageSize=2000" in path) for path in paths] == [
        (False, True),
        (True, True),
        (True, True),
    ]
    # 8 vCPU x 0.036353 + 30 GiB x 0.004872 + 0.4025
    kind = NodeKind("n1-standard-8", "NVIDIA_TESLA_T4", 1)
    assert table.price(kind, REGION).hourly == pytest.approx(8 * 0.036353 + 30 * 0.004872 + 0.4025)
    assert table.regions[REGION]["accelerators"]["NVIDIA_H100_80GB"] == pytest.approx(11.288)


def test_ambiguous_and_non_hourly_skus_have_no_price() -> None:
    table = table_of(read(SKUS), REGION, (P,), "USD")
    assert set(table.regions[REGION]["vcpu"]) == {"n1"}
    assert table.price(NodeKind("e2-standard-8"), REGION).missing == ("e2-standard-8 in us-central1",)
    assert table_of(read(SKUS), REGION, (P,), "EUR").regions == {REGION: {}}


def test_prices_of_several_prefixes_add_up_where_all_have_one() -> None:
    fee = "Vertex AI: Management fee on"
    skus = [*SKUS[:3], sku(f"{fee} N1 Predefined Instance Core running in Americas", 5_000_000)]
    table = table_of(read(skus), REGION, (P, fee), "USD")
    assert table.regions[REGION]["vcpu"] == {"n1": pytest.approx(0.041353)}
    assert table.regions[REGION]["gib"] == {}


async def test_access_is_refused() -> None:
    denied = web.json_response({"error": {"message": "no", "status": "PERMISSION_DENIED"}}, status=403)
    async with serving(denied) as server, transport_to(server) as transport:
        with pytest.raises(NotAuthorisedError):
            await catalog_prices(transport, REGION)


@pytest.mark.parametrize("text", ["<html>", json.dumps([1])])
async def test_answers_of_unexpected_form_raise(text: str) -> None:
    async with serving(web.Response(text=text)) as server, transport_to(server) as transport:
        with pytest.raises(ServiceError):
            await catalog_prices(transport, REGION)


DEAREST = [
    (f"{P} A2 Instance Core running in Americas", 36_000_000, {}),
    (f"{P} A2 Instance Ram running in Americas", 5_000_000, {"usageUnit": "GiBy.h"}),
    (f"{P} A3 Instance Core in Iowa", 34_000_000, {}),
    (f"{P} A3 Instance Ram in Iowa", 3_000_000, {"usageUnit": "GiBy.h"}),
    (f"{P} NVIDIA Tesla A100 GPU running in Americas", 500_000_000, {"units": "3"}),
    (f"{P} NVIDIA A100 80GB GPU running in Americas", 500_000_000, {"units": "4"}),
    (f"{P} NVIDIA H100 80GB in Iowa", 260_000_000, {"units": "11"}),
    (f"{P} N2D AMD Instance Core running in Americas", 30_000_000, {}),
    (f"{P} N2D AMD Instance Ram running in Americas", 4_000_000, {"usageUnit": "GiBy.h"}),
    (f"{P} C2D AMD Instance Core running in Americas", 33_000_000, {}),
    (f"{P} C2D AMD Instance Ram running in Americas", 4_400_000, {"usageUnit": "GiBy.h"}),
    (f"{P} Compute optimized Instance Core running in Americas", 39_000_000, {}),
    (f"{P} Compute optimized Instance Ram running in Americas", 5_000_000, {"usageUnit": "GiBy.h"}),
    ("Vertex AI: Training/Pipelines Management fee on A3 Instance Core in Iowa", 1, {}),
]


@pytest.mark.parametrize(
    ("kind", "hourly"),
    [
        (NodeKind("a2-highgpu-1g", "NVIDIA_TESLA_A100", 1), 12 * 0.036 + 85 * 0.005 + 3.5),
        (NodeKind("a2-ultragpu-8g", "NVIDIA_A100_80GB", 8), 96 * 0.036 + 1360 * 0.005 + 8 * 4.5),
        (NodeKind("a3-highgpu-8g", "NVIDIA_H100_80GB", 8), 208 * 0.034 + 1872 * 0.003 + 8 * 11.26),
        (NodeKind("n2d-standard-8"), 8 * 0.030 + 32 * 0.004),
        (NodeKind("c2d-highcpu-8"), 8 * 0.033 + 16 * 0.0044),
        (NodeKind("c2-standard-60"), 60 * 0.039 + 240 * 0.005),
    ],
)
def test_dearest_machines_have_a_price(kind: NodeKind, hourly: float) -> None:
    skus = [sku(text, nanos, **more) for text, nanos, more in DEAREST]
    assert table_of(read(skus), REGION, (P,), "USD").price(kind, REGION).hourly == pytest.approx(hourly)


def test_unknown_machine_has_no_price() -> None:
    table = table_of(read([sku(text, nanos, **more) for text, nanos, more in DEAREST]), REGION, (P,), "USD")
    for machine in ("a3-highgpu-9g", "a3-megagpu-8g-lssd"):
        assert table.price(NodeKind(machine), REGION).missing == (f"{machine} in {REGION}",)
