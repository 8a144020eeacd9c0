"""A local service that stands in for Ray on Vertex AI: the API, and clusters of real Ray behind it."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
