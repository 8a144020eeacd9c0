"""Texts of errors that the service was seen to answer, with the type of each. Pure data.

A code alone does not tell an exceeded quota from too many requests, or a stockout from an outage: only the text does.
Each pattern matches the constant part of a text, in lower case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_provider_vertex_ray.errors import (
    ClusterExistsError,
    NameNotReusableError,
    NetworkExhaustedError,
    NetworkSetupError,
    PreconditionError,
    QuotaExceededError,
    RateLimitedError,
    ServiceError,
    StockoutError,
)

__all__ = ["RECORDED_TEXTS", "RecordedText", "type_of_text"]


@dataclass(frozen=True)
class RecordedText:
    """A text of the service.

    :param pattern: regular expression for its constant part, in lower case
    :param kind: type of the error
    :param example: the text, as it was recorded
    :param source: where it was recorded; ``documented`` and ``reported`` as in docs/service-facts.md
    """

    pattern: str
    kind: type[ServiceError]
    example: str
    source: str


RECORDED_TEXTS: tuple[RecordedText, ...] = (
    # Limits of requests come first: their texts contain those of training quotas.
    RecordedText(
        r"quota exceeded for .*(per (minute|second|day)\b|[ _]requests?(?![a-z]))",
        RateLimitedError,
        "Quota exceeded for quota metric 'Resource management requests' and limit 'Resource management requests per "
        "minute per region' of service 'aiplatform.googleapis.com' for consumer 'project_number:123'.",
        "documented: https://cloud.google.com/docs/quotas/troubleshoot",
    ),
    RecordedText(
        r"quota metrics exceed quota limits",
        QuotaExceededError,
        "The following quota metrics exceed quota limits: "
        "aiplatform.googleapis.com/custom_model_training_nvidia_t4_gpus",
        "reported: live runs of 2024",
    ),
    RecordedText(
        r"following quotas? (are|is) exceeded",
        QuotaExceededError,
        "The following quotas are exceeded: CustomModelTrainingT4GPUsPerProjectPerRegion",
        "reported: two independent live runs of August and September 2026",
    ),
    RecordedText(
        r"quota ('[^']*' |limit '[^']*' has been )?exceeded",
        QuotaExceededError,
        "Quota 'NVIDIA_T4_GPUS' exceeded.  Limit: 1.0 in region us-central1.",
        "documented: https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation",
    ),
    RecordedText(
        r"resources are insufficient in region",
        StockoutError,
        "Resources are insufficient in region: us-central1. Please try a different region or use a different "
        "accelerator type.",
        "documented: https://cloud.google.com/vertex-ai/docs/general/troubleshooting; reported: live runs of 2024",
    ),
    RecordedText(
        r"not have enough resources available|resource_pool_exhausted|try (again in )?a different (region|zone)",
        StockoutError,
        "The zone 'projects/p/zones/us-east1-c' does not have enough resources available to fulfill the request. Try a "
        "different zone, or try again later. (resource type:compute), please try a different region",
        "reported: live runs of August and September 2026",
    ),
    RecordedText(
        r"couldn't find free blocks in allocated ip ranges",
        NetworkExhaustedError,
        "Failed to create subnetwork. Couldn't find free blocks in allocated IP ranges. Please allocate new ranges for "
        "this service provider.",
        "reported: live runs of 2024",
    ),
    RecordedText(
        r"\bnetwork(attachment)?s/\S+ was not found|network attachment .*(not found|permission)",
        NetworkSetupError,
        "The resource 'projects/123456789012/regions/us-east1/networkAttachments/example-ray' was not found",
        "reported: a live run of September 2026",
    ),
    RecordedText(
        r"existing persistentresource with the same id",
        ClusterExistsError,
        'There is an existing PersistentResource with the same ID "x" created or being created. Please use a different '
        "ID.",
        "reported: live runs of 2024",
    ),
    RecordedText(
        r"is being created thus can ?not be deleted",
        PreconditionError,
        'PersistentResource "x" is being created thus can not be deleted now. Please try again later after it\'s '
        "active.",
        "reported: live runs of 2026",
    ),
    RecordedText(
        r"\bid\b.*(recently deleted|deleted recently|was deleted|can ?not be (used again|reused))",
        NameNotReusableError,
        "The PersistentResource ID 'x' was deleted recently and cannot be used again yet.",
        "inferred: the documentation has the rule and no text",
    ),
)
"""The texts, in the order in which they are tried."""

_COMPILED = tuple((re.compile(text.pattern, re.DOTALL), text.kind) for text in RECORDED_TEXTS)


def type_of_text(message: str) -> type[ServiceError] | None:
    """Return the type of the error with a text; None for a text that was not recorded."""
    lowered = message.lower()
    return next((kind for pattern, kind in _COMPILED if pattern.search(lowered)), None)
