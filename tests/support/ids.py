"""Names of cases that are the same in every process: pytest-xdist compares what its processes have collected."""

from __future__ import annotations

import re
from typing import Any


def case_id(value: Any) -> str:
    """The value as text, without addresses in memory, and sets in order."""
    if isinstance(value, (set, frozenset)):
        return ", ".join(sorted(map(str, value)))
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
