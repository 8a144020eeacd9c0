"""Prices by machine type, or by vCPU and GiB of a machine family, and by accelerator. Pure.

No price is ever guessed: whatever has no price is reported, and then there is no total.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_vertex_ray.core.checks import is_number
from airflow_provider_vertex_ray.core.cluster.machines import machine_named
from airflow_provider_vertex_ray.errors import InvalidArgumentError

_SECTIONS = ("machines", "vcpu", "gib", "accelerators")


@dataclass(frozen=True, order=True)
class NodeKind:
    """A kind of node.

    :param machine_type: machine type, such as ``n1-standard-16``
    :param accelerator_type: accelerator, such as ``NVIDIA_TESLA_T4``; empty for none
    :param accelerator_count: number of accelerators of each node
    """

    machine_type: str
    accelerator_type: str = ""
    accelerator_count: int = 0

    def __str__(self) -> str:
        more = f"+{self.accelerator_count}x{self.accelerator_type}" if self.accelerator_count else ""
        return f"{self.machine_type}{more}"


def machine_size(machine_type: str) -> tuple[int, float] | None:
    """Return the vCPUs and the GiB of memory of a machine type; None for an unknown one."""
    known = machine_named(machine_type)
    return (known.vcpus, known.gib) if known else None


@dataclass(frozen=True)
class Price:
    """The price of a node of one kind.

    :param hourly: price per hour; None if anything has no price
    :param missing: machine types and accelerators without a price
    """

    hourly: float | None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class PriceTable:
    """Prices per hour, by region.

    Its JSON form is ``{"currency": "USD", "regions": {"us-central1": {"machines": {"n1-standard-16": 0.76}, "vcpu":
    {"n1": 0.032}, "gib": {"n1": 0.0042}, "accelerators": {"NVIDIA_TESLA_T4": 0.35}}}}``. Prices in ``machines`` exclude
    accelerators, and take precedence over ``vcpu`` and ``gib``, which are by machine family.

    :param currency: ISO 4217 code
    :param regions: the four sections of each region
    """

    currency: str
    regions: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    @classmethod
    def from_value(cls, value: Any) -> PriceTable:
        """Return the price table in the JSON form.

        :raises InvalidArgumentError: it is malformed; the error names the field, the value and the rule
        """
        if isinstance(value, PriceTable):
            return value
        if not isinstance(value, dict):
            raise InvalidArgumentError("price_table", value, "Use an object with currency and regions.")
        _check_keys("price_table", value, ("currency", "regions"))
        currency, regions = value.get("currency"), value.get("regions")
        if not isinstance(currency, str) or not re.fullmatch(r"[A-Z]{3}", currency):
            raise InvalidArgumentError(
                "price_table['currency']", currency, "Use the three-letter code of a currency, such as USD."
            )
        if not isinstance(regions, dict):
            raise InvalidArgumentError("price_table['regions']", regions, "Use an object with prices by region.")
        for region, sections in regions.items():
            place = f"price_table['regions'][{region!r}]"
            if not isinstance(sections, dict):
                raise InvalidArgumentError(place, sections, f"Use an object with {', '.join(_SECTIONS)}.")
            _check_keys(place, sections, _SECTIONS)
            for section, prices in sections.items():
                if not isinstance(prices, dict):
                    raise InvalidArgumentError(f"{place}[{section!r}]", prices, "Use an object with prices per hour.")
                for name, price in prices.items():
                    if not is_number(price) or price < 0:
                        raise InvalidArgumentError(
                            f"{place}[{section!r}][{name!r}]", price, "Use a price per hour of 0 or more."
                        )
        return cls(currency, regions)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form of the table."""
        return {
            "currency": self.currency,
            "regions": {
                region: {section: dict(prices) for section, prices in sections.items()}
                for region, sections in self.regions.items()
            },
        }

    def price(self, kind: NodeKind, region: str) -> Price:
        """Return the price of a node per hour.

        :param kind: kind of the node
        :param region: region of the node
        """
        sections = self.regions.get(region, {})
        missing: list[str] = []
        hourly = self._machine(kind.machine_type, sections, missing)
        if kind.accelerator_count:
            each = sections.get("accelerators", {}).get(kind.accelerator_type)
            if each is None:
                missing.append(kind.accelerator_type)
            else:
                hourly += kind.accelerator_count * each
        if missing:
            return Price(None, tuple(f"{name} in {region}" for name in missing))
        return Price(hourly)

    @staticmethod
    def _machine(machine_type: str, sections: Mapping[str, Mapping[str, float]], missing: list[str]) -> float:
        whole = sections.get("machines", {}).get(machine_type)
        if whole is not None:
            return whole
        size = machine_size(machine_type)
        family = machine_type.split("-")[0]
        core, memory = (sections.get(part, {}).get(family) for part in ("vcpu", "gib"))
        if size is None or core is None or memory is None:
            missing.append(machine_type)
            return 0.0
        return size[0] * core + size[1] * memory


def _check_keys(place: str, value: dict[str, Any], names: tuple[str, ...]) -> None:
    if unknown := sorted(set(map(str, value)) - set(names)):
        raise InvalidArgumentError(place, ", ".join(unknown), f"The fields are {', '.join(names)}.")
