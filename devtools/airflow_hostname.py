"""``[core] hostname_callable``: each component of one machine under a name of its own in the ``job`` table."""

from __future__ import annotations

import os
import socket

VARIABLE = "VERTEX_RAY_DEVTOOLS_COMPONENT"


def component_hostname() -> str:
    """The component's name; the machine's for a command that is none."""
    return os.environ.get(VARIABLE) or socket.gethostname()
