"""Make Ray's processes behave as on separate machines, although they share one.

Python imports this module in every process of a cluster, because its directory is on the node host's ``PYTHONPATH``.
This code runs in jobs: it must not import the emulator, and it must not fail.

- A driver finds its node by the machine's address, which all nodes of an emulated cluster share: without this module
  Ray attaches it to any of them, and the driver dies when that node is removed. On the service a resize does not affect
  a driver on the head.
- Ray's HTTP servers check no token, and a web page can reach them: they get the emulator's own check
  (``access.guard``).
- If Ray runs in a virtual environment, it copies all of it for each runtime environment with ``pip`` or ``uv``: more
  than a gigabyte. The service's images have no virtual environment, and a new one sees the installed packages, as it
  does here.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

_VARIABLE = "VERTEX_RAY_EMULATOR_NODE"
# Ray's HTTP servers, all of which run code for whoever reaches them.
_SERVERS = ("ray/dashboard/dashboard.py", "ray/dashboard/agent.py", "ray/_private/runtime_env/agent/main.py")


class _Patches:
    """Import hook that patches modules of Ray when they are loaded."""

    def __init__(self, patches):  # type: ignore[no-untyped-def]
        self._patches = patches

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        """Return the module's own spec, with a loader that patches the module."""
        patch = self._patches.pop(name, None)
        if patch is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            original = spec.loader.exec_module

            def exec_module(module):  # type: ignore[no-untyped-def]
                original(module)
                patch(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _attach_to_own_node(services) -> None:  # type: ignore[no-untyped-def]
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


def _see_installed_packages(virtualenv_utils) -> None:  # type: ignore[no-untyped-def]
    if not virtualenv_utils.is_in_virtualenv():
        return
    create = virtualenv_utils.create_or_get_virtualenv

    async def create_beside(path, cwd, logger):  # type: ignore[no-untyped-def]
        await create(path, cwd, logger)
        home = virtualenv_utils.get_virtualenv_path(path)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        lent = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        (Path(home) / "lib" / version / "site-packages" / "installed.pth").write_text("\n".join(lent) + "\n")

    virtualenv_utils.is_in_virtualenv = lambda: False
    virtualenv_utils.create_or_get_virtualenv = create_beside


def _guard_servers(web_app) -> None:  # type: ignore[no-untyped-def]
    if not sys.argv[0].endswith(_SERVERS):
        return
    spec = importlib.util.spec_from_file_location("_emulator_access", Path(__file__).resolve().parents[2] / "access.py")
    if spec is None or spec.loader is None:
        raise ImportError("access.py of the emulator is missing")
    access = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(access)
    create = web_app.Application.__init__

    def guarded(self, *arguments, middlewares=(), **options):  # type: ignore[no-untyped-def]
        create(self, *arguments, middlewares=[access.guard(), *middlewares], **options)

    web_app.Application.__init__ = guarded


def _run_hidden_sitecustomize() -> None:
    """Run the environment's own ``sitecustomize``, which this module hides."""
    here = Path(__file__).resolve().parent
    elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if os.environ.get(_VARIABLE):
    sys.meta_path.insert(
        0,
        _Patches(  # type: ignore[no-untyped-call]
            {
                "aiohttp.web_app": _guard_servers,
                "ray._private.services": _attach_to_own_node,
                "ray._private.runtime_env.virtualenv_utils": _see_installed_packages,
            }
        ),
    )
_run_hidden_sitecustomize()
