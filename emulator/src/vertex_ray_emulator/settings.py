"""What an emulator is started with."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

BackendKind = Literal["ray", "fake"]
DashboardAddresses = Literal["localhost", "google"]

LOOPBACK = "127.0.0.1"
COMPANIONS = ("storage", "bigquery")


def default_state_dir() -> Path:
    """``$XDG_STATE_HOME/vertex-ray-emulator``, by default below ``~/.local/state``."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "vertex-ray-emulator"


@dataclass(frozen=True)
class Settings:
    """The emulator's settings. Every time of the service is a setting, and short by default.

    :param port: The main HTTP port on 127.0.0.1; 0 takes a free one.
    :param state_dir: Certificates, logs and the note of the running emulator.
    :param backend: ``ray`` for real clusters, ``fake`` for instant ones that run no code.
    :param provisioning_seconds: The least time that a create takes; the service takes 9 to 14 minutes.
    :param dashboard_warmup_seconds: For so long after RUNNING a dashboard answers 503; the service up to 300.
    :param name_reuse_seconds: For so long after a delete a name is refused; the service up to 7,200.
    :param token_seconds: The life of an access token; Google's live about 3,600.
    :param delete_seconds: The least time that a delete takes.
    :param resize_seconds: The least time that a resize takes; the service "a few minutes".
    :param deploy_seconds: The least time that a deployment of a model takes; the service takes minutes.
    :param scrape_seconds: How often the nodes' metrics are read.
    :param hold_get: Answer Get only once the cluster is no longer PROVISIONING. The SDK sleeps for 150 s when
        its first Get finds a cluster that is not RUNNING; with this it need not.
    :param dashboard_addresses: The form of RAY_DASHBOARD_URI. ``google`` is the service's own, a bare host name, which
        only clients that use the proxy of the environment can reach (``requests`` does, aiohttp and so Ray's
        ``tail_job_logs`` do not). ``localhost`` puts ``localhost:PORT/`` before it, which every client can reach, but
        which the Google provider's Ray operators do not know for a Vertex address.
    :param companions: Other services' emulators to run beside, out of ``storage`` and ``bigquery``.
    :param project: The only project's id.
    :param project_number: Its number; resource names in answers have it in place of the id.
    """

    port: int = 8787
    state_dir: Path = field(default_factory=default_state_dir)
    backend: BackendKind = "ray"
    provisioning_seconds: float = 0.5
    dashboard_warmup_seconds: float = 0.0
    name_reuse_seconds: float = 5.0
    token_seconds: float = 3600.0
    delete_seconds: float = 0.0
    resize_seconds: float = 0.0
    deploy_seconds: float = 0.5
    scrape_seconds: float = 5.0
    hold_get: bool = False
    dashboard_addresses: DashboardAddresses = "localhost"
    companions: tuple[str, ...] = ()
    project: str = "demo-project"
    project_number: str = "123456789012"

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be between 0 and 65535, not {self.port}")
        for name in (
            "provisioning_seconds",
            "dashboard_warmup_seconds",
            "name_reuse_seconds",
            "delete_seconds",
            "resize_seconds",
            "deploy_seconds",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative, and finite: {getattr(self, name)}")
        for name in ("token_seconds", "scrape_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, and finite: {getattr(self, name)}")
        for name in self.companions:
            if name not in COMPANIONS:
                raise ValueError(f"with must name some of {', '.join(COMPANIONS)}, not {name!r}")
        if not re.fullmatch(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", self.project):
            raise ValueError(f"project is no project id (6 to 30 of a-z, 0-9 and -): {self.project!r}")
        if not re.fullmatch(r"[1-9][0-9]{5,18}", self.project_number):
            raise ValueError(f"project_number must be a number of 6 to 19 digits: {self.project_number!r}")
