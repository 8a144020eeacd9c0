"""A local emulator of Ray on Vertex AI: the API, with real Ray clusters behind it."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
