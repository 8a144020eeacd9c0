"""Settings of an emulator."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vertex_ray_emulator.profile import DEFAULT_PROFILE, ProfileName, Trait, traits_of

BackendKind = Literal["ray", "fake"]
DashboardAddresses = Literal["localhost", "google"]

LOOPBACK = "127.0.0.1"
WARMUP_SECONDS = 2.0
"""Default warm-up of dashboards with the trait ``warmup``; up to 300 s on the service, as reported."""
PERMISSION_SECONDS = 1.0
"""Default for which 401 and 403 follow, with the trait ``late-permissions``; minutes on the service, as reported."""
COMPANIONS = ("storage", "bigquery")


def default_state_dir() -> Path:
    """Return ``$XDG_STATE_HOME/vertex-ray-emulator``; ``XDG_STATE_HOME`` defaults to ``~/.local/state``."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "vertex-ray-emulator"


@dataclass(frozen=True)
class Settings:
    """Settings of an emulator. Every delay of the service is a setting and short by default.

    :param port: main HTTP port on 127.0.0.1; 0 picks a free one.
    :param state_dir: directory of certificates, logs and the state file of the running emulator.
    :param backend: ``ray`` for real clusters, ``fake`` for instant ones without Ray.
    :param provisioning_seconds: minimum duration of a create; the service takes 9 to 14 minutes.
    :param profile: ``google`` assumes the worst that was reported about the service, ``lenient`` the best.
    :param without: traits of the profile to leave out, see ``profile.TRAITS``.
    :param dashboard_warmup_seconds: seconds after RUNNING in which a dashboard answers 524, or 503 without the trait
        ``warmup``; up to 300 on the service.
    :param permission_seconds: seconds after that in which it answers 401 and 403, with the trait ``late-permissions``;
        minutes on the service.
    :param leak_seconds: how long a resource whose create failed stays PROVISIONING, with the trait ``leaked-creates``;
        more than 3,000 on the service.
    :param autoscaling_idle_seconds: how long a node of an autoscaling pool is idle before it is removed; 300 on the
        service.
    :param name_reuse_seconds: seconds after a delete in which the name is refused; up to 7,200 on the service.
    :param token_seconds: lifetime of an access token; about 3,600 seconds on the service.
    :param delete_seconds: minimum duration of a delete.
    :param resize_seconds: minimum duration of a resize; "a few minutes" on the service.
    :param deploy_seconds: minimum duration of the deployment of a model; minutes on the service.
    :param scrape_seconds: interval between two readings of the nodes' metrics.
    :param hold_get: answer Get only once the cluster is no longer PROVISIONING, to all clients. The Gets of the
        vertex_ray SDK are always answered so; otherwise it would sleep for 150 s in each create.
    :param dashboard_addresses: form of RAY_DASHBOARD_URI. ``google`` is the service's own form, a bare host name, which
        is reachable only by clients that use the proxy of the environment (``requests`` does; aiohttp, and so Ray's
        ``tail_job_logs``, does not). ``localhost`` puts ``localhost:PORT/`` before it, which every client can reach
        but the Google provider's Ray operators do not accept as a Vertex AI address.
    :param allow_other_users: admit requests of other users of the machine.
    :param companions: other services' emulators to run beside this one: ``storage``, ``bigquery``.
    :param project: id of the only project.
    :param project_number: number of the project, which replaces the id in the resource names of answers.
    """

    port: int = 8787
    state_dir: Path = field(default_factory=default_state_dir)
    backend: BackendKind = "ray"
    provisioning_seconds: float = 0.5
    profile: ProfileName = DEFAULT_PROFILE
    without: tuple[str, ...] = ()
    dashboard_warmup_seconds: float | None = None
    permission_seconds: float = PERMISSION_SECONDS
    leak_seconds: float = 5.0
    autoscaling_idle_seconds: float = 10.0
    name_reuse_seconds: float = 5.0
    token_seconds: float = 3600.0
    delete_seconds: float = 0.0
    resize_seconds: float = 0.0
    deploy_seconds: float = 0.5
    scrape_seconds: float = 5.0
    hold_get: bool = False
    dashboard_addresses: DashboardAddresses = "localhost"
    allow_other_users: bool = False
    companions: tuple[str, ...] = ()
    project: str = "demo-project"
    project_number: str = "123456789012"

    def __post_init__(self) -> None:
        traits_of(self.profile, self.without)
        if not 0 <= self.port <= 65535:
            raise ValueError(f"Invalid value for port: {self.port}. Use a number from 0 to 65535.")
        for name in (
            "provisioning_seconds",
            "warmup_seconds",
            "permission_seconds",
            "leak_seconds",
            "autoscaling_idle_seconds",
            "name_reuse_seconds",
            "delete_seconds",
            "resize_seconds",
            "deploy_seconds",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"Invalid value for {name}: {getattr(self, name)}. Use a finite number of seconds, 0 or more."
                )
        for name in ("token_seconds", "scrape_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"Invalid value for {name}: {getattr(self, name)}. Use a positive, finite number of seconds."
                )
        for name in self.companions:
            if name not in COMPANIONS:
                raise ValueError(f"Invalid value for with: {name!r}. Use names out of {', '.join(COMPANIONS)}.")
        if not re.fullmatch(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", self.project):
            raise ValueError(
                f"Invalid value for project: {self.project!r}. Use 6 to 30 characters out of a-z, 0-9 and -."
            )
        if not re.fullmatch(r"[1-9][0-9]{5,18}", self.project_number):
            raise ValueError(
                f"Invalid value for project_number: {self.project_number!r}. Use a number of 6 to 19 digits."
            )

    @property
    def traits(self) -> frozenset[str]:
        """Names of the traits that this emulator has."""
        return traits_of(self.profile, self.without)

    def has(self, trait: Trait) -> bool:
        """Return whether this emulator has a trait."""
        return trait in self.traits

    @property
    def warmup_seconds(self) -> float:
        """Seconds after RUNNING in which a dashboard is not ready."""
        if self.dashboard_warmup_seconds is not None:
            return self.dashboard_warmup_seconds
        return WARMUP_SECONDS if self.has("warmup") else 0.0
