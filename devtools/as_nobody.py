"""Run as ``python -m devtools.as_nobody PROGRAM ARGUMENTS``: the program without root's rights."""

from __future__ import annotations

import os
import sys

from devtools.process_tree import die_with_parent

NOBODY = 65534

if __name__ == "__main__":
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    # The change of the user has undone it.
    die_with_parent()
    os.execv(sys.argv[1], sys.argv[1:])
