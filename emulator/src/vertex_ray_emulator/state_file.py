"""State file that a running emulator keeps in its state directory, for clients that look for it."""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class StateDirectoryError(OSError):
    """A state directory cannot be kept from other users."""


def state_file_path(state_dir: Path) -> Path:
    """Return the path of the state file in a state directory."""
    return state_dir / "emulator.json"


def lock_path(state_dir: Path) -> Path:
    """Return the path of the file that a running emulator keeps locked."""
    return state_dir / "emulator.lock"


def make_private(state_dir: Path) -> None:
    """Create a state directory that only this user can enter, or make an existing one so.

    :raises StateDirectoryError: if it belongs to another user.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = state_dir.stat().st_uid
    if owner != os.getuid():
        raise StateDirectoryError(
            f"The state directory {state_dir} belongs to the user with id {owner}. Use another --state-dir."
        )
    state_dir.chmod(0o700)


def write_state(state_dir: Path, state: dict[str, Any]) -> None:
    """Replace the state file atomically, readable by this user only."""
    file = state_file_path(state_dir)
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(json.dumps(state, indent=2) + "\n")
    new.replace(file)


def read_left_state(state_dir: Path) -> dict[str, Any] | None:
    """Return the state in the file of a state directory, even if its emulator is dead; None without a valid file."""
    try:
        return dict(json.loads(state_file_path(state_dir).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def is_locked(state_dir: Path) -> bool:
    """Return whether an emulator, which may be starting or stopping, holds a state directory."""
    try:
        descriptor = os.open(lock_path(state_dir), os.O_RDWR)
    except PermissionError:
        return True  # another user's; its process id decides
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_state(state_dir: Path) -> dict[str, Any] | None:
    """Return the state of the emulator that runs on a state directory; None if none runs.

    A file that a dead emulator left behind is ignored, even if another process has its process id now.
    """
    state = read_left_state(state_dir)
    if state is None or not is_locked(state_dir):
        return None
    try:
        os.kill(state["pid"], 0)
    except PermissionError:
        return state
    except (OSError, KeyError, TypeError):
        return None
    return state
