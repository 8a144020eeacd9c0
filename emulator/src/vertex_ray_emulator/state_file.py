"""The note that a running emulator leaves in its state directory, for whoever wants to talk to it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def state_file_path(state_dir: Path) -> Path:
    """Where the note is."""
    return state_dir / "emulator.json"


def running(state_dir: Path) -> dict[str, Any] | None:
    """The note of the emulator that lives on a state directory; None when there is none.

    A note that was left by an emulator that died is not believed.
    """
    try:
        note = json.loads(state_file_path(state_dir).read_text())
        os.kill(note["pid"], 0)
    except PermissionError:
        return dict(note)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(note)
