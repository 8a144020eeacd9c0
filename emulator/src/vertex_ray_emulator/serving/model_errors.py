"""Errors of a predictor process."""

from __future__ import annotations


class ArtifactError(Exception):
    """The artifact has no file that can be loaded; the text says what was looked for."""


class PredictionError(Exception):
    """A prediction failed; the text is the container's."""
