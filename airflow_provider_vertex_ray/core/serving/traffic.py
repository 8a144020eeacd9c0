"""Traffic splits of an endpoint: percentages by deployed model id, which add up to 100. Pure."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["NEW", "restored_split", "split_with", "split_without"]

NEW = "0"
"""Stands for the model that a deployment adds."""


def split_with(split: dict[str, int], percentage: int) -> dict[str, int] | None:
    """Give a new model its share; the others share the rest in proportion.

    :param split: the endpoint's split.
    :param percentage: percentage of the new model.
    :return: the new split; None to leave the split unchanged, so that no model gets traffic.
    :raises ValueError: no other model has traffic, so that the shares cannot add up to 100.
    """
    had = {key: share for key, share in split.items() if share}
    if not had:
        if percentage not in (0, 100):
            raise ValueError("no other model has traffic")
        return {NEW: 100} if percentage else None
    rest = 100 - percentage
    return {NEW: percentage, **_scaled(had, rest)}


def split_without(split: dict[str, int], gone: str) -> dict[str, int] | None:
    """Distribute the traffic of one deployed model over the others in proportion.

    :return: the new split; None if the model had no traffic; empty if it had all of it.
    """
    if not split.get(gone):
        return None
    rest = {key: share for key, share in split.items() if key != gone and share}
    return _scaled(rest, 100) if rest else {}


def restored_split(
    split: dict[str, int], previous: dict[str, int], gone: str, left: Collection[str]
) -> dict[str, int] | None:
    """Return the split from before a deployment that is undone.

    :param split: the endpoint's current split.
    :param previous: its split before the deployment, with 0 for each model without traffic.
    :param gone: id of the deployed model that is undeployed.
    :param left: ids of the deployed models that remain; others have been undeployed since.
    :return: the new split; None if it need not change; empty if no model that remains is to have traffic.
    """
    before = {key: share for key, share in previous.items() if share and key in left}
    now = {key: share for key, share in split.items() if share}
    others = {key for key in now if key != gone}
    if others - previous.keys():
        # A model that was deployed since has traffic; that change is kept.
        return split_without(split, gone)
    wanted = _scaled(before, 100) if before else {}
    return None if wanted == now else wanted


def _scaled(shares: dict[str, int], total: int) -> dict[str, int]:
    """Scale shares so that they add up to a total; the first one takes what rounding leaves."""
    whole = sum(shares.values())
    scaled = {key: share * total // whole for key, share in shares.items()}
    scaled[next(iter(scaled))] += total - sum(scaled.values())
    return scaled
