"""The project, as a test may script it: services, permissions, quotas, networks, machine types and keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vertex_ray_emulator.project.catalog import ACCELERATORS, MACHINES
from vertex_ray_emulator.project.quota_metrics import METRICS
from vertex_ray_emulator.wire.api_table import SERVICE_TITLES, requirements
from vertex_ray_emulator.wire.errors import ApiError
from vertex_ray_emulator.wire.names import REGION

_SERVICE = r"[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)*\.googleapis\.com"
_PERMISSION = r"[a-z][a-zA-Z0-9]*\.[a-zA-Z0-9]+\.[a-zA-Z0-9]+"
_ROLE = r"((projects|organizations)/[^/]+/)?roles/[\w.]+"
_ACCOUNT = r"[^@/\s]+@[^@/\s]+"
_NAME = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
_REGION_OR_ZONE = rf"{REGION.pattern}(-[a-z])?"
KEY_STATES = (
    "PENDING_GENERATION", "ENABLED", "DISABLED", "DESTROYED", "DESTROY_SCHEDULED", "PENDING_IMPORT", "IMPORT_FAILED",
)  # fmt: skip


@dataclass(frozen=True)
class ProjectScript:
    """Differences from a project in which everything is enabled, granted and available.

    :param services: ``ENABLED`` or ``DISABLED``, by the name of the service.
    :param denied_permissions: permissions that the caller does not have.
    :param policy: members by role, in addition to the own role of Vertex AI's service agent, which an entry replaces.
    :param service_accounts: ``{"denied_permissions": […]}`` by email; None for an account that does not exist.
    :param quota: ``limit``, and ``used`` in addition to the emulated clusters, by quota metric and region.
    :param networks: fields of networks, by name; None for a network that does not exist.
    :param network_attachments: fields of attachments, by ``region/name``; None for an attachment that does not exist.
    :param crypto_keys: state of the primary version of each key, by ``location/ring/key``.
    :param missing_types: machine types and accelerators that are missing in a region or zone.
    """

    services: dict[str, str] = field(default_factory=dict)
    denied_permissions: list[str] = field(default_factory=list)
    policy: dict[str, list[str]] = field(default_factory=dict)
    service_accounts: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    quota: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    networks: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    network_attachments: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    crypto_keys: dict[str, str] = field(default_factory=dict)
    missing_types: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Any) -> ProjectScript:
        """Return a script from its JSON object.

        :raises ValueError: if a field or a value is not allowed; the text has the field, the value and the rule.
        """
        if not isinstance(data, dict):
            raise ValueError(f"Invalid value for project: {data!r}. Use a JSON object.")
        if unknown := sorted(set(data) - set(_CHECKS)):
            raise ValueError(
                f"Unknown fields: {', '.join(unknown)}. A project has the fields {', '.join(sorted(_CHECKS))}."
            )
        for name, value in data.items():
            _CHECKS[name](name, value)
        return cls(**data)

    def lacks(self, region: str, name: str) -> bool:
        """Return whether a machine type or an accelerator is missing in a region, or in all of its zones.

        :param region: name of the region.
        :param name: name of the type, in the spelling of Vertex AI or of Compute Engine.
        """
        return all(spelled(name) in self.missing_in(region, zone) for zone in zones(region))

    def missing_in(self, region: str, zone: str) -> set[str]:
        """Return the types that are missing in a zone, as :func:`spelled` writes them."""
        return {spelled(each) for place in (region, zone) for each in self.missing_types.get(place, [])}

    def to_json(self) -> dict[str, Any]:
        """Return the script as a JSON object, with empty values for fields that were not given."""
        return {name: getattr(self, name) for name in _CHECKS}


def zones(region: str) -> tuple[str, str, str]:
    """Return three zones for a region; the letters differ from the real ones in some regions."""
    return (f"{region}-a", f"{region}-b", f"{region}-c")


def spelled(name: str) -> str:
    """Return a machine type or an accelerator in one spelling, because services write them differently."""
    return name.upper().replace("_", "-")


class Project:
    """The project: the current script, and the checks that follow from it.

    :param project_id: id of the project, for texts.
    :param number: number of the project, for texts and names.
    """

    def __init__(self, project_id: str, number: str) -> None:
        self.id, self.number = project_id, number
        self.script = ProjectScript()

    def enabled(self, service: str) -> bool:
        """Return whether a service is enabled."""
        return self.script.services.get(service, "ENABLED") == "ENABLED"

    def granted(self, permission: str) -> bool:
        """Return whether the caller has a permission."""
        return permission not in self.script.denied_permissions

    def check(self, rpc: str, resource: str = "") -> None:
        """Check that the caller may call a method.

        :param rpc: name of the RPC.
        :param resource: name of the resource, for the text of the error.
        :raises ApiError: PERMISSION_DENIED if the service is disabled or the permission is denied.
        """
        service, permission = requirements(rpc)
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


# Checks of the fields -------------------------------------------------------------------------------------


def _expect(place: str, value: Any, holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"Invalid value for {place}: {value!r}. {rule}")


def _object(place: str, value: Any, keys: str, rule: str) -> dict[str, Any]:
    _expect(place, value, isinstance(value, dict), "Use a JSON object.")
    for key in value:
        _expect(f"{place}[{key!r}]", key, re.fullmatch(keys, key) is not None, rule)
    return dict(value)


def _services(place: str, value: Any) -> None:
    for name, state in _object(
        place, value, _SERVICE, "Use the name of a service, such as compute.googleapis.com."
    ).items():
        _expect(f"{place}[{name!r}]", state, state in ("ENABLED", "DISABLED"), "Use ENABLED or DISABLED.")


def _permissions(place: str, value: Any) -> None:
    _expect(place, value, isinstance(value, list), "Use a list of permissions.")
    for index, each in enumerate(value):
        fits = isinstance(each, str) and re.fullmatch(_PERMISSION, each) is not None
        _expect(f"{place}[{index}]", each, fits, "Use the name of a permission, such as compute.networks.get.")


def _policy(place: str, value: Any) -> None:
    for role, members in _object(place, value, _ROLE, "Use the name of a role, such as roles/editor.").items():
        fits = isinstance(members, list) and all(isinstance(each, str) and ":" in each for each in members)
        _expect(f"{place}[{role!r}]", members, fits, "Use a list of members, such as user:me@example.com.")


def _accounts(place: str, value: Any) -> None:
    for email, account in _object(place, value, _ACCOUNT, "Use the email of a service account.").items():
        here = f"{place}[{email!r}]"
        if account is None:
            continue
        _expect(here, account, isinstance(account, dict), 'Use {"denied_permissions": […]} or null.')
        _expect(here, account, set(account) <= {"denied_permissions"}, "The only allowed field is denied_permissions.")
        _permissions(f"{here}.denied_permissions", account.get("denied_permissions", []))


def _quota(place: str, value: Any) -> None:
    rule = f"Use one of the quota metrics {', '.join(METRICS)}."
    _object(place, value, "|".join(METRICS), rule)
    for metric, regions in value.items():
        here = f"{place}[{metric!r}]"
        for region, numbers in _object(
            here, regions, REGION.pattern, "Use the name of a region, such as us-central1."
        ).items():
            at = f"{here}[{region!r}]"
            _expect(at, numbers, isinstance(numbers, dict), 'Use an object such as {"limit": 100, "used": 90}.')
            _expect(at, numbers, set(numbers) <= {"limit", "used"}, "The only allowed fields are limit and used.")
            for key, number in numbers.items():
                whole = isinstance(number, int) and not isinstance(number, bool)
                least = -1 if key == "limit" else 0
                rule = f"Use an integer of at least {least}" + (" (-1 for no limit)." if least else ".")
                _expect(f"{at}.{key}", number, whole and number >= least, rule)


def _fields_of(names: str, rule: str) -> Callable[[str, Any], None]:
    def check(place: str, value: Any) -> None:
        for name, found in _object(place, value, names, rule).items():
            here = f"{place}[{name!r}]"
            _expect(here, found, found is None or isinstance(found, dict), "Use a JSON object or null.")
            peerings = (found or {}).get("peerings", [])
            _expect(
                f"{here}.peerings",
                peerings,
                isinstance(peerings, list) and all(isinstance(each, dict) for each in peerings),
                "Use a list of JSON objects.",
            )

    return check


def _keys(place: str, value: Any) -> None:
    for name, state in _object(place, value, r"[^/]+/[^/]+/[^/]+", "Use the form location/ring/key.").items():
        _expect(f"{place}[{name!r}]", state, state in KEY_STATES, f"Use one of {', '.join(KEY_STATES)}.")


def _missing(place: str, value: Any) -> None:
    for where, types in _object(
        place, value, _REGION_OR_ZONE, "Use the name of a region or a zone, such as us-central1 or us-central1-a."
    ).items():
        here = f"{place}[{where!r}]"
        _expect(here, types, isinstance(types, list), "Use a list of types.")
        for index, each in enumerate(types):
            known = isinstance(each, str) and (each in MACHINES or each.upper().replace("-", "_") in ACCELERATORS)
            _expect(f"{here}[{index}]", each, known, "Use an existing machine type or accelerator type.")


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "services": _services,
    "denied_permissions": _permissions,
    "policy": _policy,
    "service_accounts": _accounts,
    "quota": _quota,
    "networks": _fields_of(_NAME, "Use the name of a network, such as my-vpc."),
    "network_attachments": _fields_of(rf"[a-z0-9-]+/{_NAME}", "Use the form region/name."),
    "crypto_keys": _keys,
    "missing_types": _missing,
}
