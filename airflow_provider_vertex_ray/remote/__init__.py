"""What runs on the cluster. It imports the standard library and Ray, and nothing of this package or of Airflow."""

from __future__ import annotations

from pathlib import Path

MODEL_EXPORT = str(Path(__file__).with_name("vertex_ray_model_export.py"))
"""For ``py_modules``: the module ``vertex_ray_model_export``, whose ``export_model`` writes a model for serving."""
