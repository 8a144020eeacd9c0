"""Outcomes of a failed create or resize, with the service's own texts (from reports of live runs)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.faults import DEFAULT_MESSAGE, Fault
from vertex_ray_emulator.project.quota_metrics import cpu_metric, gpu_metric
from vertex_ray_emulator.project.recorded_texts import (
    INTERNAL,
    IP_RANGES,
    QUOTA,
    QUOTA_METRICS,
    STOCKOUT,
    STOCKOUT_INSUFFICIENT,
    quota_name,
)
from vertex_ray_emulator.wire.errors import CODES, UNAUTHENTICATED_MESSAGE, ApiError, code_for_status
from vertex_ray_emulator.wire.protos import accelerator_name

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_REASON = 4_000
"""Characters of a reason that are part of an error: it has the last lines of a log."""


def internal() -> ApiError:
    """Return the error of a cluster that did not start because of an internal error of the service."""
    return ApiError(INTERNAL.code, INTERNAL.text)


def did_not_start(reason: Exception) -> ApiError:
    """Return the same error with the emulator's own reason, which the service does not tell.

    :param reason: what went wrong on this machine, such as a node host that did not answer.
    """
    text = f"{type(reason).__name__}: {reason}"
    shown = text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"
    return ApiError(INTERNAL.code, f"{INTERNAL.text} The Vertex Ray emulator says why: {shown}")


def quota_metric(resource: Any) -> str:
    """Return the training quota that a resource's last pool uses: ``custom_model_training_nvidia_t4_gpus``."""
    spec = resource.resource_pools[-1].machine_spec
    accelerator = accelerator_name(spec)
    return gpu_metric(accelerator) if accelerator else cpu_metric(spec.machine_type)


def quota_text(metrics: Iterable[str], *, recorded: bool) -> str:
    """Return the text of an exceeded quota.

    :param metrics: metrics without their service, such as ``custom_model_training_cpus``.
    :param recorded: use the text of recorded live runs, else that of custom jobs.
    """
    if recorded:
        return QUOTA.text.format(quotas=", ".join(map(quota_name, metrics)))
    return QUOTA_METRICS.text.format(metrics=", ".join(f"aiplatform.googleapis.com/{metric}" for metric in metrics))


def failure(fault: Fault, resource: Any, region: str, *, recorded: bool = False) -> ApiError | None:
    """Return the error of a provisioning fault; None for an outcome that is not a failure by itself.

    :param fault: fault with an outcome.
    :param resource: persistent resource that the fault applies to.
    :param region: its region.
    :param recorded: use the texts of recorded live runs where there are several.
    """
    stockout = STOCKOUT if recorded else STOCKOUT_INSUFFICIENT
    known = {
        "quota": (QUOTA.code, quota_text([quota_metric(resource)], recorded=recorded)),
        "stockout": (stockout.code, stockout.text.format(region=region)),
        "internal": (INTERNAL.code, INTERNAL.text),
        "ip_ranges": (IP_RANGES.code, IP_RANGES.text),
    }
    if fault.outcome not in known:
        return None
    code, text = known[fault.outcome]
    if fault.code in CODES:
        code = fault.code
    return ApiError(code, text if fault.message == DEFAULT_MESSAGE else fault.message)


def as_error(fault: Fault) -> ApiError:
    """Return the error of a fault with the action ``status``."""
    code = fault.code if fault.code in CODES else code_for_status(fault.status)
    # A code alone ("code": "NOT_FOUND") implies its own status, which the default of 503 would contradict.
    status = CODES[code][1] if fault.code in CODES and fault.status == 503 else fault.status
    message = fault.message
    if message == DEFAULT_MESSAGE and code == "UNAUTHENTICATED":
        message = UNAUTHENTICATED_MESSAGE
    return ApiError(code, message, http_status=status)
