"""A ``[core] hostname_callable`` that names each component of one machine differently in the ``job`` table."""

from __future__ import annotations

import os
import socket

VARIABLE = "VERTEX_RAY_DEVTOOLS_COMPONENT"


def component_hostname() -> str:
    """Return the component's name, or the machine's name outside of a component."""
    return os.environ.get(VARIABLE) or socket.gethostname()
