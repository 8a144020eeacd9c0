"""Code that runs on the cluster. It imports the standard library and Ray, but nothing of Airflow or this package."""

from __future__ import annotations

from pathlib import Path

MODEL_EXPORT = str(Path(__file__).with_name("vertex_ray_model_export.py"))
"""Path for ``py_modules``: the module ``vertex_ray_model_export``, whose ``export_model`` saves a model for serving."""
