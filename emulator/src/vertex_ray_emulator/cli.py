"""Command line interface: ``vertex-ray-emulator``."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import errno
import json
import logging
import os
import shlex
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator import __version__
from vertex_ray_emulator.profile import TRAITS
from vertex_ray_emulator.runtime import UnsupportedRuntimeError, check_runtime, describe
from vertex_ray_emulator.settings import WARMUP_SECONDS, Settings, default_state_dir
from vertex_ray_emulator.state_file import StateDirectoryError, is_locked, read_left_state, read_state

if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_RUNNING = 3
STOP_SECONDS = 60.0
"""A stopping emulator first ends its clusters, which takes seconds each on a busy machine."""
_SECONDS = {
    "provisioning_seconds": "minimum duration of a create",
    "permission_seconds": "time for which a dashboard then answers 401 and 403 (trait late-permissions)",
    "leak_seconds": "time for which a resource whose create failed stays PROVISIONING (trait leaked-creates)",
    "autoscaling_idle_seconds": "time for which a node of an autoscaling pool is idle before it is removed",
    "name_reuse_seconds": "time after a delete during which the name is refused",
    "token_seconds": "lifetime of an access token",
    "delete_seconds": "minimum duration of a delete",
    "resize_seconds": "minimum duration of a resize",
    "deploy_seconds": "minimum duration of the deployment of a model",
    "scrape_seconds": "interval between two readings of the nodes' metrics",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vertex-ray-emulator",
        description="A local emulator of Ray on Vertex AI: the API, with real Ray clusters behind it.",
    )
    parser.add_argument("--version", action="version", version=f"vertex-ray-emulator {__version__} ({describe()})")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser(
        "start", help="run the emulator until it is interrupted", formatter_class=_HelpFormatter
    )
    defaults = Settings(state_dir=default_state_dir())
    start.add_argument("--port", type=int, default=defaults.port, help="main port on 127.0.0.1; 0 picks a free one")
    start.add_argument(
        "--backend",
        choices=("ray", "fake"),
        default=defaults.backend,
        help="real Ray clusters, or instant ones without Ray",
    )
    start.add_argument(
        "--profile",
        choices=("google", "lenient"),
        default=defaults.profile,
        help="google: assume the worst that was reported about the service; lenient: assume the best",
    )
    start.add_argument(
        "--without",
        type=_names,
        default="",
        metavar="TRAITS",
        help="traits of the profile google to turn off, separated by commas: " + ", ".join(TRAITS),
    )
    start.add_argument(
        "--dashboard-warmup-seconds",
        type=float,
        default=None,
        metavar="SECONDS",
        help=f"time after RUNNING during which a dashboard answers 524, by default {WARMUP_SECONDS:g} with the trait "
        "warmup; without it 503, and by default not at all",
    )
    for name, text in _SECONDS.items():
        option = "--" + name.replace("_", "-")
        start.add_argument(option, type=float, default=getattr(defaults, name), metavar="SECONDS", help=text)
    start.add_argument(
        "--hold-get",
        action="store_true",
        help="answer every Get only once the cluster is no longer PROVISIONING, as those of the vertex_ray SDK are",
    )
    start.add_argument(
        "--dashboard-addresses",
        choices=("localhost", "google"),
        default=defaults.dashboard_addresses,
        help="localhost:PORT/<host>, which all clients reach, or the bare <host> that the Google provider requires",
    )
    start.add_argument(
        "--with",
        dest="companions",
        type=_names,
        default="",
        metavar="NAMES",
        help="other services' emulators to run beside this one, such as storage,bigquery",
    )
    start.add_argument(
        "--allow-other-users", action="store_true", help="admit requests of this machine's other users as well"
    )
    start.add_argument("--project", default=defaults.project, help="id of the project")
    start.add_argument("--project-number", default=defaults.project_number, help="number of the project")
    env = commands.add_parser("env", help="print the environment variables that lead an unmodified SDK to the emulator")
    status = commands.add_parser("status", help="show the clusters; exit code 3 when no emulator is running")
    stop = commands.add_parser("stop", help="stop the emulator and its clusters; exit code 3 when none is running")
    for command in (env, status):
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (start, env, status, stop):
        command.add_argument(
            "--state-dir", type=Path, default=defaults.state_dir, help="directory of the emulator's files"
        )
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help formatter that shows defaults, except empty ones."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (False, None, "") else super()._get_help_string(action)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    options["state_dir"] = options["state_dir"].expanduser().absolute()
    if command == "env":
        return _env(options["state_dir"], as_json=options["json"])
    if command == "status":
        return _status(options["state_dir"], as_json=options["json"])
    if command == "stop":
        return _stop(options["state_dir"])
    try:
        settings = Settings(**options)
    except ValueError as error:
        return _fail(str(error), 2)
    try:
        # Before the imports, which fail in words that help nobody.
        check_runtime(settings.backend)
    except UnsupportedRuntimeError as error:
        return _fail(str(error), 1)
    return _start(settings)


def _fail(text: str, code: int) -> int:
    print(f"vertex-ray-emulator: {text}", file=sys.stderr)
    return code


def _start(settings: Settings) -> int:
    # Read when grpc is imported. With its fork support a process that the emulator forks is sometimes aborted before it
    # becomes a job's ("epoll_wait error: Bad file descriptor", exit code -6).
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    # The servers cost a second to import, and `env` runs in users' shells.
    try:
        from vertex_ray_emulator.companions.companions import CompanionError
        from vertex_ray_emulator.service import AlreadyRunningError, Emulator
    except ImportError as error:
        return _fail(f"{error}. Install it with: pip install vertex-ray-emulator", 1)

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    async def serve() -> int:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        emulator = Emulator(settings)
        try:
            await emulator.start()
        except (AlreadyRunningError, CompanionError) as error:
            return _fail(str(error), 1)
        except StateDirectoryError as error:
            return _fail(str(error), 1)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            advice = " Use another --port, or --port 0 for a free one." if taken else ""
            return _fail(f"Could not listen on a port or write a file: {error}.{advice}", 1)
        print(_greeting(settings, emulator.host), flush=True)
        await stop.wait()
        await emulator.stop()
        return 0

    return asyncio.run(serve())


def _greeting(settings: Settings, host: str) -> str:
    """Return what a user needs to know and to paste, once the emulator is ready."""
    more = "" if settings.state_dir == default_state_dir() else f" --state-dir {shlex.quote(str(settings.state_dir))}"
    clusters = "real Ray clusters" if settings.backend == "ray" else "instant clusters without Ray"
    connection = f"google-cloud-platform://?project={settings.project}"
    return f"""vertex-ray-emulator is ready on {host}
Project {settings.project}, any location, {clusters}, profile {settings.profile}.

For Airflow (scheduler, workers, triggerer):
  export VERTEX_RAY_EMULATOR_HOST={host}
  export AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT='{connection}'

For the vertex_ray SDK and Ray's clients, in a shell of its own:
  eval "$(vertex-ray-emulator env{more})"

Next: vertex-ray-emulator status{more}
Stop: Ctrl-C, or vertex-ray-emulator stop{more}"""


def _not_running(state_dir: Path) -> str:
    """Return why no emulator can be used, and what to do."""
    left = read_left_state(state_dir)
    start = "Start one with: vertex-ray-emulator start"
    if is_locked(state_dir):
        return f"The emulator on state directory {state_dir} is starting or stopping. Try again in a moment."
    if left is not None:
        died = f"The one with pid {left.get('pid')} on {left.get('host')} has died."
        return f"No emulator is running on state directory {state_dir}. {died} {start}"
    return f"No emulator is running on state directory {state_dir}. {start}"


def _env(state_dir: Path, *, as_json: bool) -> int:
    state = read_state(state_dir)
    if state is None:
        return _fail(_not_running(state_dir), NOT_RUNNING)
    if as_json:
        print(json.dumps(state["env"], indent=2))
    else:
        for name, value in state["env"].items():
            print(f"export {name}={shlex.quote(value)}")
    return 0


def _stop(state_dir: Path) -> int:
    state = read_state(state_dir)
    if state is None:
        return _fail(_not_running(state_dir), NOT_RUNNING)
    try:
        os.kill(state["pid"], signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has just ended
    except PermissionError:
        return _fail(f"The emulator (pid {state['pid']}) belongs to another user.", 1)
    until = time.monotonic() + STOP_SECONDS
    while is_locked(state_dir):
        if time.monotonic() > until:
            return _fail(f"The emulator (pid {state['pid']}) has not ended after {STOP_SECONDS:g} s.", 1)
        time.sleep(0.05)
    print(f"The emulator on {state['host']} has stopped.")
    return 0


def _status(state_dir: Path, *, as_json: bool) -> int:
    state = read_state(state_dir)
    clusters = _fetch(state["host"], "clusters") if state else None
    if state is None or clusters is None:
        if as_json:
            print(json.dumps({"running": False}))
            return NOT_RUNNING
        if state is not None:
            text = f"The emulator (pid {state['pid']}) does not answer on {state['host']}."
            return _fail(text, NOT_RUNNING)
        return _fail(_not_running(state_dir), NOT_RUNNING)
    companions = _fetch(state["host"], "companions") or []
    if as_json:
        known = {name: state[name] for name in ("host", "pid", "project", "profile", "traits")}
        print(json.dumps({"running": True, **known, "clusters": clusters, "companions": companions}))
        return 0
    wanted = os.environ.get("VERTEX_RAY_EMULATOR_HOST")
    if wanted and wanted.replace("localhost", "127.0.0.1") != state["host"]:
        print(
            f"warning: VERTEX_RAY_EMULATOR_HOST is {wanted} here, but this emulator listens on {state['host']}.",
            file=sys.stderr,
        )
    print(f"running on {state['host']} (pid {state['pid']}), project {state['project']}, profile {state['profile']}")
    for each in companions:
        print(f"{each['name']} on {each['address']}" + ("" if each["alive"] else " HAS DIED"))
    rows = [("CLUSTER", "STATE", "NODES", "AGE", "DASHBOARD")]
    rows += [
        (
            each["id"],
            each["state"],
            str(sum(1 for node in each["nodes"] if node["alive"])),
            _age(each["createTime"]),
            each["dashboard_url"] or "-",
        )
        for each in clusters
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _fetch(host: str, what: str) -> list[dict[str, Any]] | None:
    """Return the emulator's clusters or companions; None if nothing answers at the address."""
    # Ignore the user's proxy, which is this emulator's own after `eval $(… env)`: it does not serve loopback addresses.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{host}/emulator/{what}", timeout=10) as answer:
            return list(json.load(answer)[what])
    except (OSError, ValueError, KeyError):
        return None


def _age(created: str) -> str:
    begin = datetime.datetime.fromisoformat(created.split(".")[0].rstrip("Z")).replace(tzinfo=datetime.timezone.utc)
    seconds = int((datetime.datetime.now(datetime.timezone.utc) - begin).total_seconds())
    hours, rest = divmod(max(seconds, 0), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
