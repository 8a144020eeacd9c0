"""Load a module from a file that is in no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_module(name: str, file: Path, *, register: bool = True) -> ModuleType:
    """Load a module.

    :param name: its name
    :param file: its file
    :param register: whether other code finds it in ``sys.modules``
    """
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if register:
        sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
