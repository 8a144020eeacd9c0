"""Attaches the drivers of an emulated cluster to the node that they run on.

Python imports this by itself in every process of a cluster, as the node host has this directory on ``PYTHONPATH``.

A driver looks for its node by the machine's address, which all nodes of an emulated cluster share; left alone, Ray
attaches it to any of them, and the driver dies when that one is removed. On real machines a driver on the head has
nothing to fear from a resize. Nothing of the emulator may be imported here, and nothing may fail: it runs in jobs.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

_VARIABLE = "VERTEX_RAY_EMULATOR_NODE"
_MODULE = "ray._private.services"


class _Patch:
    """Waits for Ray's module to be imported, and replaces its one function."""

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        """The module's own spec, with a loader that patches what it has loaded."""
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            original = spec.loader.exec_module

            def exec_module(module):  # type: ignore[no-untyped-def]
                original(module)
                _attach(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _attach(services) -> None:  # type: ignore[no-untyped-def]
    any_node = services.get_node_to_connect_for_driver

    def own_node(gcs_address, node_ip_address):  # type: ignore[no-untyped-def]
        node_id = os.environ.get(_VARIABLE)
        if node_id:
            try:
                return services.get_node(gcs_address, node_id)
            except Exception:  # noqa: BLE001, S110 (another cluster, such as one that the job itself started)
                pass
        return any_node(gcs_address, node_ip_address)

    services.get_node_to_connect_for_driver = own_node


def _run_the_environments_own() -> None:
    """This module hides the environment's ``sitecustomize``, if it has one."""
    here = Path(__file__).resolve().parent
    elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if os.environ.get(_VARIABLE):
    sys.meta_path.insert(0, _Patch())
_run_the_environments_own()
