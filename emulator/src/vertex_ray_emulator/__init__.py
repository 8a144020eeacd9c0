"""A local emulator of Ray on Vertex AI: the API, with real Ray clusters behind it."""

from __future__ import annotations

from vertex_ray_emulator.embedded import EmulatorStartError, LocalEmulator, start

__all__ = ["EmulatorStartError", "LocalEmulator", "__version__", "start"]

__version__ = "0.1.0"
