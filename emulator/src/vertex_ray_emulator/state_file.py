"""State file that a running emulator keeps in its state directory, for clients that look for it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def state_file_path(state_dir: Path) -> Path:
    """Return the path of the state file in a state directory."""
    return state_dir / "emulator.json"


def read_state(state_dir: Path) -> dict[str, Any] | None:
    """Return the state of the emulator that runs on a state directory; None if none runs.

    A file that a dead emulator left behind is ignored.
    """
    try:
        state = json.loads(state_file_path(state_dir).read_text())
        os.kill(state["pid"], 0)
    except PermissionError:
        return dict(state)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(state)
