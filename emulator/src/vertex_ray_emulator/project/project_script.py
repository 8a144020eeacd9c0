"""What a test says about the project: its services, permissions, quotas, networks, keys. Without a word all is well."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vertex_ray_emulator.project.catalog import ACCELERATORS, MACHINES
from vertex_ray_emulator.project.quota_metrics import METRICS
from vertex_ray_emulator.wire.api_table import SERVICE_TITLES, needs
from vertex_ray_emulator.wire.errors import ApiError

_SERVICE = r"[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)*\.googleapis\.com"
_PERMISSION = r"[a-z][a-zA-Z0-9]*\.[a-zA-Z0-9]+\.[a-zA-Z0-9]+"
_ACCOUNT = r"[^@/\s]+@[^@/\s]+"
_NAME = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
_PLACE = r"[a-z]+-[a-z]+[0-9]+(-[a-z])?"
KEY_STATES = (
    "PENDING_GENERATION", "ENABLED", "DISABLED", "DESTROYED", "DESTROY_SCHEDULED", "PENDING_IMPORT", "IMPORT_FAILED",
)  # fmt: skip


@dataclass(frozen=True)
class ProjectScript:
    """What differs from a project in which everything is enabled, granted and plentiful.

    :param services: ``ENABLED`` or ``DISABLED``, by the service's name.
    :param denied_permissions: What the caller may not do.
    :param service_accounts: ``{"denied_permissions": […]}`` by email; None for one that does not exist.
    :param quota: By quota metric and region: ``limit``, and ``used`` beside what the emulated clusters use.
    :param networks: Fields of networks, by name; None for one that does not exist.
    :param network_attachments: Fields of attachments, by ``region/name``; None as with networks.
    :param crypto_keys: The state of each key's primary version, by ``location/ring/key``.
    :param missing_types: Machine types and accelerators that a region or zone does not have.
    """

    services: dict[str, str] = field(default_factory=dict)
    denied_permissions: list[str] = field(default_factory=list)
    service_accounts: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    quota: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    networks: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    network_attachments: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    crypto_keys: dict[str, str] = field(default_factory=dict)
    missing_types: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Any) -> ProjectScript:
        """A script from its JSON object.

        :raises ValueError: for what it can not be, with the field, the value and the rule.
        """
        if not isinstance(data, dict):
            raise ValueError(f"the project must be a JSON object, not {data!r}")
        if unknown := sorted(set(data) - set(_CHECKS)):
            raise ValueError(f"unknown field(s) {unknown}; a project has {sorted(_CHECKS)}")
        for name, value in data.items():
            _CHECKS[name](name, value)
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """The script as it was given, with empty fields for what it does not say."""
        return {name: getattr(self, name) for name in _CHECKS}


class Project:
    """The project as callers find it: the script that is in force, and what it refuses.

    :param project_id: For texts.
    :param number: For texts and names.
    """

    def __init__(self, project_id: str, number: str) -> None:
        self.id, self.number = project_id, number
        self.script = ProjectScript()

    def enabled(self, service: str) -> bool:
        """Whether a service is enabled."""
        return self.script.services.get(service, "ENABLED") == "ENABLED"

    def granted(self, permission: str) -> bool:
        """Whether the caller has a permission."""
        return permission not in self.script.denied_permissions

    def check(self, rpc: str, resource: str = "") -> None:
        """Let a call through to its service, or not.

        :raises ApiError: PERMISSION_DENIED for a service that is disabled, or a permission that is denied.
        """
        service, permission = needs(rpc)
        if not self.enabled(service):
            raise self._disabled(service)
        if permission and not self.granted(permission):
            raise ApiError(
                "PERMISSION_DENIED",
                f"Permission '{permission}' denied on resource '//{service}/{resource or f'projects/{self.number}'}' "
                "(or it may not exist).",
                details=[_info("IAM_PERMISSION_DENIED", service, permission=permission, resource=resource)],
            )

    def _disabled(self, service: str) -> ApiError:
        url = f"https://console.developers.google.com/apis/api/{service}/overview?project={self.number}"
        title = SERVICE_TITLES.get(service, service)
        return ApiError(
            "PERMISSION_DENIED",
            f"{title} has not been used in project {self.number} before or it is disabled. Enable it by visiting {url} "
            "then retry. If you enabled this API recently, wait a few minutes for the action to propagate to our "
            "systems and retry.",
            details=[
                _info("SERVICE_DISABLED", service, service=service, consumer=f"projects/{self.number}"),
                {
                    "@type": "type.googleapis.com/google.rpc.Help",
                    "links": [{"description": "Google developers console API activation", "url": url}],
                },
            ],
        )


def _info(reason: str, _service: str, **metadata: str) -> dict[str, Any]:
    domain = "iam.googleapis.com" if reason == "IAM_PERMISSION_DENIED" else "googleapis.com"
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    return {"@type": kind, "reason": reason, "domain": domain, "metadata": metadata}


# What each field may be ------------------------------------------------------------------------------------


def _expect(place: str, value: Any, holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"{place} is {value!r}, but {rule}")


def _object(place: str, value: Any, keys: str, rule: str) -> dict[str, Any]:
    _expect(place, value, isinstance(value, dict), "it must be a JSON object")
    for key in value:
        _expect(f"{place}[{key!r}]", key, re.fullmatch(keys, key) is not None, rule)
    return dict(value)


def _services(place: str, value: Any) -> None:
    for name, state in _object(place, value, _SERVICE, "a service is like compute.googleapis.com").items():
        _expect(f"{place}[{name!r}]", state, state in ("ENABLED", "DISABLED"), "it must be ENABLED or DISABLED")


def _permissions(place: str, value: Any) -> None:
    _expect(place, value, isinstance(value, list), "it must be a list of permissions")
    for index, each in enumerate(value):
        fits = isinstance(each, str) and re.fullmatch(_PERMISSION, each) is not None
        _expect(f"{place}[{index}]", each, fits, "a permission is like compute.networks.get")


def _accounts(place: str, value: Any) -> None:
    for email, account in _object(place, value, _ACCOUNT, "a service account is named by its email").items():
        here = f"{place}[{email!r}]"
        if account is None:
            continue
        _expect(here, account, isinstance(account, dict), 'it must be {"denied_permissions": […]}, or null')
        _expect(here, account, set(account) <= {"denied_permissions"}, "it may have denied_permissions only")
        _permissions(f"{here}.denied_permissions", account.get("denied_permissions", []))


def _quota(place: str, value: Any) -> None:
    rule = f"a quota metric is one of {', '.join(METRICS)}"
    _object(place, value, "|".join(METRICS), rule)
    for metric, regions in value.items():
        here = f"{place}[{metric!r}]"
        for region, numbers in _object(here, regions, _PLACE, "a region is like us-central1").items():
            at = f"{here}[{region!r}]"
            _expect(at, numbers, isinstance(numbers, dict), 'it must be like {"limit": 100, "used": 90}')
            _expect(at, numbers, set(numbers) <= {"limit", "used"}, "it may have limit and used only")
            for key, number in numbers.items():
                whole = isinstance(number, int) and not isinstance(number, bool)
                least = -1 if key == "limit" else 0
                rule = f"it must be a whole number of at least {least}" + (" (-1: unlimited)" if least else "")
                _expect(f"{at}.{key}", number, whole and number >= least, rule)


def _fields_of(names: str, rule: str) -> Callable[[str, Any], None]:
    def check(place: str, value: Any) -> None:
        for name, found in _object(place, value, names, rule).items():
            here = f"{place}[{name!r}]"
            _expect(here, found, found is None or isinstance(found, dict), "it must be a JSON object, or null")
            peerings = (found or {}).get("peerings", [])
            _expect(
                f"{here}.peerings",
                peerings,
                isinstance(peerings, list) and all(isinstance(each, dict) for each in peerings),
                "it must be a list of JSON objects",
            )

    return check


def _keys(place: str, value: Any) -> None:
    for name, state in _object(place, value, r"[^/]+/[^/]+/[^/]+", "a key is location/ring/key").items():
        _expect(f"{place}[{name!r}]", state, state in KEY_STATES, f"it must be one of {', '.join(KEY_STATES)}")


def _missing(place: str, value: Any) -> None:
    for where, types in _object(place, value, _PLACE, "it is a region or a zone, like us-central1").items():
        here = f"{place}[{where!r}]"
        _expect(here, types, isinstance(types, list), "it must be a list of types")
        for index, each in enumerate(types):
            known = isinstance(each, str) and (each in MACHINES or each.upper().replace("-", "_") in ACCELERATORS)
            _expect(f"{here}[{index}]", each, known, "it must be a machine type or an accelerator that there is")


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "services": _services,
    "denied_permissions": _permissions,
    "service_accounts": _accounts,
    "quota": _quota,
    "networks": _fields_of(_NAME, "a network is like my-vpc"),
    "network_attachments": _fields_of(rf"[a-z0-9-]+/{_NAME}", "an attachment is region/name"),
    "crypto_keys": _keys,
    "missing_types": _missing,
}
