"""The body of a submission to Ray's Jobs API, validated as Ray 2.47.1 does."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def _numbers(value: Any) -> bool:
    return isinstance(value, (int, float))


def _strings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for pair in value.items() for item in pair)


@dataclass
class JobRequest:
    """The body of ``POST /api/jobs/`` (``JobSubmitRequest`` of Ray 2.47.1).

    :raises TypeError: if an argument has the wrong type; the message is Ray's.
    """

    entrypoint: str
    submission_id: str | None = None
    job_id: str | None = None
    runtime_env: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    entrypoint_num_cpus: float | None = None
    entrypoint_num_gpus: float | None = None
    entrypoint_memory: int | None = None
    entrypoint_resources: dict[str, float] | None = None

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> JobRequest:
        """Validate a decoded body; keys with the value null count as absent, as in Ray.

        :raises TypeError: if an argument is unknown, missing or of the wrong type; the message is Ray's.
        """
        known = {each.name for each in fields(cls)}
        given = {key: value for key, value in body.items() if value is not None}
        for key in given:
            if key not in known:
                raise TypeError(f"JobSubmitRequest.__init__() got an unexpected keyword argument '{key}'")
        if "entrypoint" not in given:
            raise TypeError("JobSubmitRequest.__init__() missing 1 required positional argument: 'entrypoint'")
        return cls(**given)

    def __post_init__(self) -> None:
        self._expect("entrypoint", "a string", isinstance(self.entrypoint, str))
        for name in ("submission_id", "job_id"):
            value = getattr(self, name)
            self._expect(name, "a string if provided", value is None or isinstance(value, str))
        self._expect("runtime_env", "a dict", self.runtime_env is None or isinstance(self.runtime_env, dict))
        self._expect("metadata", "a dict", self.metadata is None or isinstance(self.metadata, dict))
        if self.metadata is not None and not _strings(self.metadata):
            wrong = next(v for v in self.metadata.values() if not isinstance(v, str))
            raise TypeError(f"metadata values must be strings, got {type(wrong)}")
        for name in ("entrypoint_num_cpus", "entrypoint_num_gpus"):
            value = getattr(self, name)
            self._expect(name, "a number", value is None or _numbers(value))
        memory = self.entrypoint_memory
        self._expect("entrypoint_memory", "an integer", memory is None or isinstance(memory, int))
        resources = self.entrypoint_resources
        self._expect("entrypoint_resources", "a dict", resources is None or isinstance(resources, dict))
        for value in (resources or {}).values():
            if not _numbers(value):
                raise TypeError(f"entrypoint_resources values must be numbers, got {type(value)}")

    def _expect(self, name: str, kind: str, holds: bool) -> None:
        if not holds:
            raise TypeError(f"{name} must be {kind}, got {type(getattr(self, name))}")

    def demands(self) -> dict[str, float]:
        """Return the logical resources that the entrypoint requests, by Ray's names."""
        wanted = {
            "CPU": self.entrypoint_num_cpus or 0,
            "GPU": self.entrypoint_num_gpus or 0,
            "memory": self.entrypoint_memory or 0,
            **(self.entrypoint_resources or {}),
        }
        return {name: float(amount) for name, amount in wanted.items() if amount > 0}
