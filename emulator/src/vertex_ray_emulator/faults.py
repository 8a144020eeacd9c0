"""Faults on demand: which requests fail, how, and how often."""

from __future__ import annotations

import random
import secrets
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Scope = Literal["control_plane", "auth", "dashboard", "provisioning", "deployment"]
Action = Literal[
    "status", "reset", "hang", "drop_response", "hold_response", "truncate", "ws_abort", "ws_close", "slow", "outcome"
]
Outcome = Literal["quota", "stockout", "internal", "ip_ranges", "stuck", "leak", "partial", "slow", "unhealthy"]
_OUTCOMES_OF: dict[str, set[str]] = {
    "provisioning": {"quota", "stockout", "internal", "ip_ranges", "stuck", "leak", "partial", "slow"},
    "deployment": {"quota", "stockout", "internal", "stuck", "slow", "unhealthy"},
}

DEFAULT_MESSAGE = "injected"
_ON_REQUESTS = {"status", "reset", "hang", "drop_response", "truncate", "slow"}
_ACTIONS_OF: dict[str, set[str]] = {
    "control_plane": _ON_REQUESTS,
    "dashboard": _ON_REQUESTS | {"hold_response", "ws_abort", "ws_close"},
    "auth": {"status", "slow"},
    "provisioning": {"outcome"},
    "deployment": {"outcome"},
}


@dataclass
class Fault:
    """A fault to inject.

    :param scope: ``control_plane`` (a request to the API), ``auth`` (a token check; 401 or 403, or the metadata server
        with ``method="GetToken"``), ``dashboard`` (a request to a cluster), ``provisioning`` (the outcome of a create,
        resize or delete), ``deployment`` (the outcome of the deployment of a model).
    :param method: pattern in the syntax of :mod:`fnmatch` for the method, as in the request log.
    :param resource: pattern for the full name of the resource or for its last part, such as the cluster id.
    :param contains: text that the request's body must contain, such as a job's submission id; scope ``dashboard`` only.
    :param times: number of requests that fail; None until the fault is removed.
    :param probability: share of the matching requests that fail; the others are passed to the next matching fault.
    :param action: ``status`` answers with an error. ``reset`` cuts the connection before the request is carried out,
        ``drop_response`` afterwards. ``hold_response`` (scope ``dashboard`` only) carries the request out and holds the
        answer back until the client disconnects, or cuts the connection after ``delay`` seconds if that is positive.
        ``hang`` never answers, or cuts the connection after ``delay`` seconds. ``slow`` only waits. ``truncate`` cuts
        the connection within the body. ``ws_abort`` cuts a websocket, ``ws_close`` closes it with code 1000.
        ``outcome`` belongs to the scopes ``provisioning`` and ``deployment``.
    :param status: HTTP status for the action ``status``.
    :param code: name of the gRPC code; by default the one that corresponds to ``status``.
    :param message: text of the error. By default, an outcome has the service's own text.
    :param delay: seconds before the effect. For the outcome ``stuck``: seconds until the stuck resource changes to
        ERROR; 0 for never. For ``leak``: seconds until the leaked resource changes to ERROR; 0 for the setting
        ``leak_seconds``.
    :param after: number of websocket frames (``ws_abort``, ``ws_close``) or bytes (``truncate``) that pass first.
    :param outcome: outcome of a create, a resize, a delete (``stuck`` only) or a deployment. ``unhealthy`` is for
        deployments only, ``ip_ranges``, ``leak`` and ``partial`` for clusters only; after a ``leak`` the operation has
        failed, and the resource is PROVISIONING and not listed; ``slow`` succeeds ``delay`` seconds later.
    :param id: id by which the fault can be removed; :meth:`Faults.add` assigns one if it is empty.
    """

    scope: Scope
    method: str = "*"
    resource: str = "*"
    contains: str | None = None
    times: int | None = 1
    probability: float = 1.0
    action: Action = "status"
    status: int = 503
    code: str | None = None
    message: str = DEFAULT_MESSAGE
    delay: float = 0.0
    after: int = 0
    outcome: Outcome | None = None
    id: str = field(default="")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fault:
        """Return a fault from its JSON object.

        :raises ValueError: if a field or a value is unknown; the text names it and what is allowed.
        """
        allowed = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - allowed):
            raise ValueError(
                f"Unknown fields: {', '.join(unknown)}. A fault has the fields {', '.join(sorted(allowed))}."
            )
        if "scope" not in data:
            raise ValueError(f"Missing value for scope. Use one of {', '.join(get_args(Scope))}.")
        values = dict(data)
        if values["scope"] in _OUTCOMES_OF:
            values.setdefault("action", "outcome")
        choices = {"scope": Scope, "action": Action, "outcome": Outcome}
        for name, kind in choices.items():
            value = values.get(name)
            if value is not None and value not in get_args(kind):
                raise ValueError(f"Invalid value for {name}: {value!r}. Use one of {', '.join(get_args(kind))}.")
        kinds: dict[str, type | tuple[type, ...]] = {
            "method": str, "resource": str, "contains": (str, type(None)), "message": str, "id": str, "status": int,
            "after": int, "delay": (int, float), "probability": (int, float),
            "times": (int, type(None)), "code": (str, type(None)),
        }  # fmt: skip
        for name, expected in kinds.items():
            if name in values and (not isinstance(values[name], expected) or isinstance(values[name], bool)):
                raise ValueError(f"Invalid value for {name}: {values[name]!r}. The value has the wrong type.")
        fault = cls(**values)
        outcomes = _OUTCOMES_OF.get(fault.scope)
        if (outcomes is not None) != (fault.outcome is not None):
            raise ValueError(
                f"Invalid value for outcome: {fault.outcome!r}. The scopes provisioning and deployment require an "
                "outcome; other scopes have none."
            )
        if outcomes is not None and fault.outcome not in outcomes:
            raise ValueError(
                f"Invalid value for outcome: {fault.outcome!r}. The outcomes of scope {fault.scope} are "
                f"{', '.join(sorted(outcomes))}."
            )
        if fault.action not in _ACTIONS_OF[fault.scope]:
            raise ValueError(
                f"Invalid value for action: {fault.action!r}. The actions of scope {fault.scope} are "
                f"{', '.join(sorted(_ACTIONS_OF[fault.scope]))}."
            )
        if fault.contains and fault.scope != "dashboard":
            raise ValueError(
                f"Invalid value for contains: {fault.contains!r}. Only faults of scope dashboard look at the body."
            )
        if fault.times is not None and fault.times < 1:
            raise ValueError(
                f"Invalid value for times: {fault.times}. Use at least 1, or null for a fault that "
                "stays until it is removed."
            )
        if not 0 < fault.probability <= 1:
            raise ValueError(f"Invalid value for probability: {fault.probability}. Use a number above 0 and at most 1.")
        if fault.delay < 0 or fault.after < 0:
            raise ValueError(
                f"Invalid value for delay or after: {fault.delay}, {fault.after}. Neither must be negative."
            )
        if not 100 <= fault.status <= 599:
            raise ValueError(f"Invalid value for status: {fault.status}. Use an HTTP status from 100 to 599.")
        return fault

    def matches(self, scope: str, method: str, resource: str, body: bytes = b"") -> bool:
        """Return whether the fault applies to a request."""
        return (
            self.scope == scope
            and (self.contains or "").encode() in body
            and fnmatchcase(method, self.method)
            and (fnmatchcase(resource, self.resource) or fnmatchcase(resource.rsplit("/", 1)[-1], self.resource))
        )


class Faults:
    """The armed faults, in the order in which they were added; the first that matches a request is applied."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}

    def add(self, fault: Fault) -> str:
        """Arm a fault and return its id."""
        if not fault.id:
            fault.id = secrets.token_hex(6)
        self._faults[fault.id] = fault
        return fault.id

    def remove(self, fault_id: str) -> bool:
        """Disarm a fault; return False if no armed fault has this id, for example because it was used up."""
        return self._faults.pop(fault_id, None) is not None

    def clear(self) -> None:
        """Disarm all faults."""
        self._faults.clear()

    def listing(self) -> list[dict[str, Any]]:
        """Return the armed faults as JSON objects; ``times`` is the number of requests left."""
        return [asdict(fault) for fault in self._faults.values()]

    def need_body(self) -> bool:
        """Return whether an armed fault looks at the bodies of requests."""
        return any(fault.contains for fault in self._faults.values())

    def take(
        self, scope: str, method: str, resource: str, *, explicit: bool = False, body: bytes = b""
    ) -> Fault | None:
        """Return the fault for a request and count it down; None if the request is to succeed.

        :param scope: scope of the request.
        :param method: method of the request, as in the request log.
        :param resource: name of the resource, with the project's number.
        :param explicit: ignore faults for every method (``*``), so that only one that names this method applies.
        :param body: body of the request, where it is known.
        """
        for fault in list(self._faults.values()):
            if (explicit and fault.method == "*") or not fault.matches(scope, method, resource, body):
                continue
            if fault.probability < 1 and random.random() >= fault.probability:  # noqa: S311 - no secret
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.pop(fault.id, None)
            return fault
        return None
