"""Profiles: which of the service's inconvenient traits the emulator has.

What is not known for certain about the service is assumed to be as bad as the reports say, so that what works here
works there. Each trait can be turned off.
"""

from __future__ import annotations

from typing import Literal, get_args

ProfileName = Literal["google", "lenient"]
Trait = Literal[
    "no-websockets",
    "response-limit",
    "request-size",
    "warmup",
    "late-permissions",
    "small-heads",
    "leaked-creates",
    "recorded-texts",
    "strict-specs",
    "storage-writes",
    "run-entrypoints",
]

DEFAULT_PROFILE: ProfileName = "google"
"""The profile of an emulator that is started without ``--profile``."""

TRAITS: dict[str, str] = {
    "no-websockets": "the dashboards' proxy drops the upgrade to a websocket",
    "response-limit": "a dashboard's answer that takes more than 30 s is 524, or is cut off if it has begun",
    "request-size": "a request of more than 32 MB to a dashboard is answered 413",
    "warmup": "a dashboard answers 524 for some seconds after RUNNING",
    "late-permissions": "a dashboard then answers 401 and 403 for a moment",
    "small-heads": "a head with less than 16 vCPUs or 60 GB comes up with a dashboard that answers 524 forever",
    "leaked-creates": "what a failed create leaves behind is PROVISIONING and not listed, and later turns to ERROR",
    "recorded-texts": "quota and stockout errors have the texts that were recorded in live runs",
    "strict-specs": "specs that the service may refuse are refused: reservations, one of several worker pools that "
    "autoscales, a boot disk that a machine does not have",
    "storage-writes": "an object in the Cloud Storage of --with storage can be written once a second; 429 otherwise",
    "run-entrypoints": "the fake backend runs the jobs' entrypoints, in processes without Ray",
}
"""What each trait does."""

_PROFILES: dict[str, frozenset[str]] = {"google": frozenset(TRAITS), "lenient": frozenset()}


def traits_of(profile: str, without: tuple[str, ...] = ()) -> frozenset[str]:
    """Return the traits of a profile, except for some.

    :param profile: ``google`` or ``lenient``.
    :param without: names of traits to leave out.
    :raises ValueError: if the profile or a trait does not exist.
    """
    if profile not in _PROFILES:
        raise ValueError(f"Invalid value for profile: {profile!r}. Use one of {', '.join(get_args(ProfileName))}.")
    for name in without:
        if name not in TRAITS:
            raise ValueError(f"Invalid value for without: {name!r}. Use names out of {', '.join(TRAITS)}.")
    return _PROFILES[profile] - frozenset(without)
