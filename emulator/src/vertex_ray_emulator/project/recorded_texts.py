"""Texts of the service's errors, as data: what was recorded in live runs, and where.

Marks of the sources: **F** a live run that somebody published, **D** documentation, **I** inferred. Parts in braces are
filled in.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RecordedText:
    """An error of the service.

    :param code: name of the canonical code.
    :param text: the message, with fields in braces.
    :param source: mark and origin.
    """

    code: str
    text: str
    source: str


QUOTA = RecordedText(
    "RESOURCE_EXHAUSTED",
    "The following quotas are exceeded: {quotas}",
    "F: two independent reports of live runs, with CustomModelTrainingT4GPUsPerProjectPerRegion. I: the names of the "
    "other quotas, formed like it",
)
QUOTA_METRICS = RecordedText(
    "RESOURCE_EXHAUSTED",
    "The following quota metrics exceed quota limits: {metrics}",
    "F: reports of custom jobs (429), with aiplatform.googleapis.com/custom_model_training_…",
)
STOCKOUT = RecordedText(
    "RESOURCE_EXHAUSTED",
    "Region {region} does not have enough resources available to fulfill the request. Please try a different region.",
    "F: '… does not have enough resources available … try a different region'. I: the words in between",
)
STOCKOUT_INSUFFICIENT = RecordedText(
    "RESOURCE_EXHAUSTED",
    "Resources are insufficient in region: {region}. Please try a different region. If you use GPUs, please also try "
    "different accelerator types or fewer accelerators.",
    "F: reports of custom jobs and persistent resources",
)
INTERNAL = RecordedText(
    "INTERNAL",
    "An internal error occurred on your cluster. Please try recreating one in a few minutes. If you still experience "
    "errors, contact Cloud AI.",
    "F: reports of persistent resources",
)
IP_RANGES = RecordedText(
    "FAILED_PRECONDITION",
    "Couldn't find free blocks in allocated IP ranges. Please allocate new ranges for this service provider.",
    "F: reports of peered clusters",
)
SAME_ID = RecordedText(
    "ALREADY_EXISTS",
    'There is an existing PersistentResource with the same ID "{id}" created or being created.',
    "F: the beginning. I: how it ends",
)
BEING_CREATED = RecordedText(
    "FAILED_PRECONDITION",
    "The PersistentResource {id} is being created thus can not be deleted now. Please try again later after it's "
    "active.",
    "F: '…is being created thus can not be deleted now. Please try again later after it's active.' I: the beginning",
)


def quota_name(metric: str) -> str:
    """Return the recorded name of a quota: ``CustomModelTrainingT4GPUsPerProjectPerRegion``.

    :param metric: metric of the quota, such as ``custom_model_training_nvidia_t4_gpus``.
    """
    words = metric.rsplit("/", 1)[-1].split("_")
    shown = {"cpus": "CPUs", "gpus": "GPUs", "nvidia": ""}
    return "".join(shown.get(word, word[:1].upper() + word[1:]) for word in words) + "PerProjectPerRegion"
