"""Faults on demand: what goes wrong next, with which request, and how often."""

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
Outcome = Literal["quota", "stockout", "internal", "ip_ranges", "stuck", "partial", "slow", "unhealthy"]
_OUTCOMES_OF: dict[str, set[str]] = {
    "provisioning": {"quota", "stockout", "internal", "ip_ranges", "stuck", "partial", "slow"},
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
    """One fault.

    :param scope: ``control_plane`` (a request to the API), ``auth`` (a check of a token; 401 or 403, or with
        ``method="GetToken"`` the metadata server), ``dashboard`` (a request to a cluster), ``provisioning``
        (what a create, resize or delete comes to), ``deployment`` (what a deployment of a model comes to).
    :param method: An fnmatch pattern over :attr:`Call.method <.calls.Call.method>`.
    :param resource: An fnmatch pattern over the resource's full name, or over its last part (the cluster id).
    :param contains: Text in the request's body, such as a job's submission id; only scope ``dashboard``.
    :param times: How often it happens; None until it is removed.
    :param probability: The share of such requests that it happens to; the others go on to the next fault.
    :param action: ``status`` answers with an error, ``reset`` cuts the connection before the request is
        carried out, ``drop_response`` after it, ``hold_response`` carries it out and keeps the answer back until the
        client goes away (``delay`` > 0: cuts after so long; only ``dashboard``), ``hang`` never answers (``delay`` > 0:
        cuts after so long), ``slow`` only waits, ``truncate`` cuts within the body, ``ws_abort`` and ``ws_close`` end a
        websocket (cut, or closed with 1000), ``outcome`` goes with the scopes
        ``provisioning`` and ``deployment``.
    :param status: The HTTP status of ``status``.
    :param code: The gRPC code's name; by default the one that fits ``status``.
    :param message: The error's text; a provisioning outcome has the service's own text unless it is given.
    :param delay: Seconds before the effect. With the outcome ``stuck``: seconds until the stuck resource
        turns to ERROR; 0 never.
    :param after: Websocket frames (``ws_abort``, ``ws_close``) or bytes (``truncate``) that pass first.
    :param outcome: What a create, a resize, a delete (only ``stuck``) or a deployment comes to; ``unhealthy`` is for
        deployments only, ``ip_ranges`` and ``partial`` for clusters only; ``slow`` takes ``delay`` seconds
        longer and comes to what it should.
    :param id: Names the fault for its removal; given by :meth:`Faults.add` when empty.
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
        """A fault from its JSON object.

        :raises ValueError: for an unknown field or value, naming it and what is allowed.
        """
        allowed = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - allowed):
            raise ValueError(f"unknown field(s) {unknown}; a fault has {sorted(allowed)}")
        if "scope" not in data:
            raise ValueError(f"scope is required: one of {list(get_args(Scope))}")
        values = dict(data)
        if values["scope"] in _OUTCOMES_OF:
            values.setdefault("action", "outcome")
        choices = {"scope": Scope, "action": Action, "outcome": Outcome}
        for name, kind in choices.items():
            value = values.get(name)
            if value is not None and value not in get_args(kind):
                raise ValueError(f"{name} must be one of {list(get_args(kind))}, not {value!r}")
        kinds: dict[str, type | tuple[type, ...]] = {
            "method": str, "resource": str, "contains": (str, type(None)), "message": str, "id": str, "status": int,
            "after": int, "delay": (int, float), "probability": (int, float),
            "times": (int, type(None)), "code": (str, type(None)),
        }  # fmt: skip
        for name, expected in kinds.items():
            if name in values and (not isinstance(values[name], expected) or isinstance(values[name], bool)):
                raise ValueError(f"{name} has a value of the wrong type: {values[name]!r}")
        fault = cls(**values)
        outcomes = _OUTCOMES_OF.get(fault.scope)
        if (outcomes is not None) != (fault.outcome is not None):
            raise ValueError('outcome goes with scope "provisioning" or "deployment", and only with these')
        if outcomes is not None and fault.outcome not in outcomes:
            raise ValueError(f"scope {fault.scope!r} has the outcomes {sorted(outcomes)}, not {fault.outcome!r}")
        if fault.action not in _ACTIONS_OF[fault.scope]:
            raise ValueError(
                f"scope {fault.scope!r} has the actions {sorted(_ACTIONS_OF[fault.scope])}, not {fault.action!r}"
            )
        if fault.contains and fault.scope != "dashboard":
            raise ValueError('contains goes with scope "dashboard"')
        if fault.times is not None and fault.times < 1:
            raise ValueError("times must be at least 1, or null for a fault that stays until it is removed")
        if not 0 < fault.probability <= 1:
            raise ValueError(f"probability must be above 0, and 1 at most, not {fault.probability}")
        if fault.delay < 0 or fault.after < 0:
            raise ValueError("delay and after must not be negative")
        if not 100 <= fault.status <= 599:
            raise ValueError(f"status must be an HTTP status, not {fault.status}")
        return fault

    def matches(self, scope: str, method: str, resource: str, body: bytes = b"") -> bool:
        """Whether it concerns a request."""
        return (
            self.scope == scope
            and (self.contains or "").encode() in body
            and fnmatchcase(method, self.method)
            and (fnmatchcase(resource, self.resource) or fnmatchcase(resource.rsplit("/", 1)[-1], self.resource))
        )


class Faults:
    """The faults that are armed, in the order of their arming; the first that matches is taken."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}

    def add(self, fault: Fault) -> str:
        """Arm a fault; gives its id."""
        if not fault.id:
            fault.id = secrets.token_hex(6)
        self._faults[fault.id] = fault
        return fault.id

    def remove(self, fault_id: str) -> bool:
        """Disarm a fault; False when there is none of this id (it may have been used up)."""
        return self._faults.pop(fault_id, None) is not None

    def clear(self) -> None:
        """Disarm all."""
        self._faults.clear()

    def listing(self) -> list[dict[str, Any]]:
        """The armed faults as JSON objects; ``times`` is what is left."""
        return [asdict(fault) for fault in self._faults.values()]

    def need_body(self) -> bool:
        """Whether a fault is armed that looks at what requests contain."""
        return any(fault.contains for fault in self._faults.values())

    def take(
        self, scope: str, method: str, resource: str, *, explicit: bool = False, body: bytes = b""
    ) -> Fault | None:
        """The fault for a request, counted down; None when it is to go well.

        :param body: What it contains, where that is known.
        :param explicit: Pass over faults for every method (``*``): only one that names this method counts.
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
