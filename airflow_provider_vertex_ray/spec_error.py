"""The error for input that can be judged without asking the service."""

from __future__ import annotations

from typing import TypeGuard

__all__ = ["SpecError", "has_template"]

_LONGEST_VALUE = 200


class SpecError(ValueError):
    """A value that the service would refuse, or that makes a cluster on which jobs hang.

    Raised at DAG parse where the value is known there, else before the first call.

    :param field: path of the field as the user writes it, e.g. ``worker_node_types[0].node_count``.
    :param value: what was given.
    :param rule: what is asked for instead, as a sentence that tells what to do.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        # All three as args, so that the error survives pickling between Airflow's processes.
        super().__init__(field, value, rule)
        self.field = field
        self.value = value
        self.rule = rule

    def __str__(self) -> str:
        shown = repr(self.value)
        if len(shown) > _LONGEST_VALUE:
            shown = shown[:_LONGEST_VALUE] + "…"
        return f"{self.field}: {shown} is refused: {self.rule}"


def has_template(value: object) -> TypeGuard[str]:
    """Tell whether ``value`` is a string that Jinja has still to render, so that its format is unknown."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)
