"""``python -m airflow_provider_vertex_ray.emulator``."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
