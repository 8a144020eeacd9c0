"""Airflow told of this provider where it is not installed, as by the wheel's own metadata."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

NAME = "airflow-provider-vertex-ray"


def registered(folder: Path) -> Path | None:
    """Make the entry point known to this process, from a folder for ``PYTHONPATH``; None where it is known already.

    To be called before Airflow looks for providers, which it does once.
    """
    try:
        distribution(NAME)
    except PackageNotFoundError:
        from airflow_provider_vertex_ray import __version__

        info = folder / f"airflow_provider_vertex_ray-{__version__}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {__version__}\n")
        entry = "provider_info = airflow_provider_vertex_ray:get_provider_info"
        plugin = "vertex_ray = airflow_provider_vertex_ray.plugins.ray_clusters:VertexRayPlugin"
        (info / "entry_points.txt").write_text(f"[apache_airflow_provider]\n{entry}\n\n[airflow.plugins]\n{plugin}\n")
        sys.path.append(str(folder))
        return folder
    return None
