"""The command ``vertex-ray-emulator``."""

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
from vertex_ray_emulator.state_file import running

if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_RUNNING = 3
_SECONDS = {
    "provisioning_seconds": "the least time that a create takes",
    "dashboard_warmup_seconds": "for so long after RUNNING a dashboard answers 503",
    "name_reuse_seconds": "for so long after a delete its name is refused",
    "token_seconds": "the life of an access token",
    "delete_seconds": "the least time that a delete takes",
    "resize_seconds": "the least time that a resize takes",
    "deploy_seconds": "the least time that a deployment of a model takes",
    "scrape_seconds": "how often the nodes' metrics are read",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vertex-ray-emulator",
        description="A local stand-in for Ray on Vertex AI: the API, and real Ray clusters behind it.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser(
        "start", help="run the emulator until it is interrupted", formatter_class=_HelpFormatter
    )
    defaults = Settings(state_dir=default_state_dir())
    start.add_argument("--port", type=int, default=defaults.port, help="main port on 127.0.0.1; 0 takes a free one")
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
        help="answer Get only once the cluster is no longer PROVISIONING (the SDK else sleeps 150 s)",
    )
    start.add_argument(
        "--dashboard-addresses",
        choices=("localhost", "google"),
        default=defaults.dashboard_addresses,
        help="localhost:PORT/<host>, which all clients reach, or the bare <host> that the Google provider wants",
    )
    start.add_argument(
        "--with",
        dest="companions",
        type=_names,
        default="",
        metavar="NAMES",
        help="other services' emulators to run beside, such as storage,bigquery",
    )
    start.add_argument("--project", default=defaults.project, help="the project's id")
    start.add_argument("--project-number", default=defaults.project_number, help="the project's number")
    env = commands.add_parser("env", help="print the environment that leads an unmodified SDK here")
    status = commands.add_parser("status", help="show the clusters; exit code 3 when no emulator is running")
    for command in (env, status):
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (start, env, status):
        command.add_argument(
            "--state-dir", type=Path, default=defaults.state_dir, help="where the emulator keeps its files"
        )
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except those that say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (False, "") else super()._get_help_string(action)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
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
        return _complain(str(error), 2)
    return _start(settings)


def _complain(text: str, code: int) -> int:
    print(f"vertex-ray-emulator: {text}", file=sys.stderr)
    return code


def _start(settings: Settings) -> int:
    # The servers cost a second to import, and `env` runs in people's shells.
    try:
        from vertex_ray_emulator.companions.companions import CompanionError
        from vertex_ray_emulator.service import AlreadyRunningError, Emulator
    except ImportError as error:
        return _complain(f"{error}; install airflow-provider-vertex-ray[emulator]", 1)

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    async def serve() -> int:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        emulator = Emulator(settings)
        try:
            await emulator.start()
        except (AlreadyRunningError, CompanionError) as error:
            return _complain(str(error), 1)
        except OSError as error:
            return _complain(f"can not listen or write: {error}", 1)
        print(f"vertex-ray-emulator is ready on {emulator.host}", flush=True)
        await stop.wait()
        await emulator.stop()
        return 0

    return asyncio.run(serve())


def _env(state_dir: Path, *, as_json: bool) -> int:
    note = running(state_dir)
    if note is None:
        return _complain(f"not running (state directory {state_dir})", NOT_RUNNING)
    if as_json:
        print(json.dumps(note["env"], indent=2))
    else:
        for name, value in note["env"].items():
            print(f"export {name}={shlex.quote(value)}")
    return 0


def _status(state_dir: Path, *, as_json: bool) -> int:
    note = running(state_dir)
    clusters = _asked(note["host"], "clusters") if note else None
    if note is None or clusters is None:
        if as_json:
            print(json.dumps({"running": False}))
            return NOT_RUNNING
        return _complain(f"not running (state directory {state_dir})", NOT_RUNNING)
    companions = _asked(note["host"], "companions") or []
    if as_json:
        print(
            json.dumps(
                {
                    "running": True,
                    "host": note["host"],
                    "pid": note["pid"],
                    "clusters": clusters,
                    "companions": companions,
                }
            )
        )
        return 0
    print(f"running on {note['host']} (pid {note['pid']}), project {note['project']}")
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


def _asked(host: str, what: str) -> list[dict[str, Any]] | None:
    """The emulator's clusters or companions; None when nobody answers there."""
    # A proxy of the user's (this emulator's own, after `eval $(… env)`) is not for loopback.
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
