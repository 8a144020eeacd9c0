"""Entry point of ``python -m vertex_ray_emulator``."""

from __future__ import annotations

import sys

from vertex_ray_emulator.cli import main

sys.exit(main())
