"""Run a program without root's rights: ``python -m devtools.as_nobody PROGRAM ARGUMENTS``."""

from __future__ import annotations

import os
import sys

from devtools.process_tree import die_with_parent

NOBODY = 65534

if __name__ == "__main__":
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    # Changing the user has reset the parent-death signal.
    die_with_parent()
    os.execv(sys.argv[1], sys.argv[1:])
