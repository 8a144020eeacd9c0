"""Command line interface: ``vertex-ray-emulator``."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import logging
import shlex
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.settings import Settings, default_state_dir
from vertex_ray_emulator.state_file import read_state

if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_RUNNING = 3
_SECONDS = {
    "provisioning_seconds": "minimum duration of a create",
    "dashboard_warmup_seconds": "time after RUNNING during which a dashboard answers 503",
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
        help="real Ray clusters, or instant ones that run no code",
    )
    for name, text in _SECONDS.items():
        option = "--" + name.replace("_", "-")
        start.add_argument(option, type=float, default=getattr(defaults, name), metavar="SECONDS", help=text)
    start.add_argument(
        "--hold-get",
        action="store_true",
        help="answer Get only once the cluster is no longer PROVISIONING; otherwise the SDK sleeps for 150 s",
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
    start.add_argument("--project", default=defaults.project, help="id of the project")
    start.add_argument("--project-number", default=defaults.project_number, help="number of the project")
    env = commands.add_parser("env", help="print the environment variables that lead an unmodified SDK to the emulator")
    status = commands.add_parser("status", help="show the clusters; exit code 3 when no emulator is running")
    for command in (env, status):
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (start, env, status):
        command.add_argument(
            "--state-dir", type=Path, default=defaults.state_dir, help="directory of the emulator's files"
        )
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help formatter that shows defaults, except empty ones."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is False or action.default == "" else super()._get_help_string(action)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    options["state_dir"] = options["state_dir"].expanduser().absolute()
    if command == "env":
        return _env(options["state_dir"], as_json=options["json"])
    if command == "status":
        return _status(options["state_dir"], as_json=options["json"])
    try:
        settings = Settings(**options)
    except ValueError as error:
        return _fail(str(error), 2)
    return _start(settings)


def _fail(text: str, code: int) -> int:
    print(f"vertex-ray-emulator: {text}", file=sys.stderr)
    return code


def _start(settings: Settings) -> int:
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
        except OSError as error:
            return _fail(f"Could not listen on a port or write a file: {error}", 1)
        print(f"vertex-ray-emulator is ready on {emulator.host}", flush=True)
        await stop.wait()
        await emulator.stop()
        return 0

    return asyncio.run(serve())


def _env(state_dir: Path, *, as_json: bool) -> int:
    state = read_state(state_dir)
    if state is None:
        return _fail(f"No emulator is running on state directory {state_dir}.", NOT_RUNNING)
    if as_json:
        print(json.dumps(state["env"], indent=2))
    else:
        for name, value in state["env"].items():
            print(f"export {name}={shlex.quote(value)}")
    return 0


def _status(state_dir: Path, *, as_json: bool) -> int:
    state = read_state(state_dir)
    clusters = _fetch(state["host"], "clusters") if state else None
    if state is None or clusters is None:
        if as_json:
            print(json.dumps({"running": False}))
            return NOT_RUNNING
        return _fail(f"No emulator is running on state directory {state_dir}.", NOT_RUNNING)
    companions = _fetch(state["host"], "companions") or []
    if as_json:
        print(
            json.dumps(
                {
                    "running": True,
                    "host": state["host"],
                    "pid": state["pid"],
                    "clusters": clusters,
                    "companions": companions,
                }
            )
        )
        return 0
    print(f"running on {state['host']} (pid {state['pid']}), project {state['project']}")
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
