"""The command ``vertex-ray-preflight``: the hook's checks without a DAG.

Nothing but the table, or the JSON, goes to the standard output; what Airflow has to say goes to the other one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.preflight.report import CHECKS, Report, Status
from airflow_provider_vertex_ray.errors import InvalidArgumentError

OK, FAILED, BAD_INPUT = 0, 1, 2
DEFAULT_CONNECTION = "google_cloud_default"


class _BadInputError(Exception):
    """What was given can not be used; the text says why."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vertex-ray-preflight",
        description="Looks whether a Ray cluster could be created and used on Vertex AI, and changes nothing.",
        epilog="Exit code: 0 when nothing fails, 1 when something does, 2 for wrong input. "
        "VERTEX_RAY_EMULATOR_HOST leads it to the emulator.",
    )
    parser.add_argument("--project", help="project of the cluster; else the connection's")
    parser.add_argument("--location", required=True, help="region of the cluster, such as us-central1")
    parser.add_argument(
        "--spec",
        metavar="FILE",
        help="JSON file with the fields of a ClusterSpec, or - for the standard input; else a ClusterSpec's defaults",
    )
    parser.add_argument("--bucket", help="a bucket that jobs use, or gs://BUCKET/FOLDER")
    parser.add_argument("--lease-uri", help="folder with the leases of shared clusters, gs://BUCKET/FOLDER")
    parser.add_argument(
        "--check", dest="checks", action="append", choices=CHECKS, help="only this check; may be given several times"
    )
    parser.add_argument(
        "--gcp-conn-id",
        help=f"the Airflow connection; else {DEFAULT_CONNECTION}, or application default credentials",
    )
    parser.add_argument(
        "--impersonation-chain", metavar="ACCOUNTS", help="service account to act as, or a chain with commas between"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    given = _parser().parse_args(arguments)
    with _own_output() as output:
        try:
            report = _look(given)
        except (InvalidArgumentError, _BadInputError) as error:
            print(f"vertex-ray-preflight: {error}", file=sys.stderr)
            return BAD_INPUT
        lines = [json.dumps(report.to_dict(), indent=2)] if given.json else report.table()
        print("\n".join(lines), file=output, flush=True)
    return FAILED if report.worst is Status.FAIL else OK


def _look(given: argparse.Namespace) -> Report:
    spec = ClusterSpec.from_value(_read_spec(given.spec))
    # Before Airflow, whose import takes seconds.
    spec.to_persistent_resource(validate_location(given.location, "--location"))
    if given.project is not None:
        validate_project(given.project, "--project")
    _import_quietly()
    from airflow_provider_vertex_ray.hooks.preflight import VertexRayPreflightHook

    chain = [each.strip() for each in (given.impersonation_chain or "").split(",") if each.strip()]
    hook = VertexRayPreflightHook(_connection(given.gcp_conn_id), chain or None, given.project, given.location)
    return hook.preflight(spec, checks=given.checks, bucket=given.bucket, lease_uri=given.lease_uri)


def _read_spec(place: str | None) -> dict[str, Any]:
    if place is None:
        return {}
    try:
        text = sys.stdin.read() if place == "-" else Path(place).read_text("utf-8")
        found = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise _BadInputError(f"--spec {place}: it can not be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise _BadInputError(f"--spec {place}: give a JSON object with the fields of a ClusterSpec")
    return found


def _connection(name: str | None) -> str:
    """The connection to use: the one that was named, or the default one, which need not be there.

    :raises _BadInputError: There is none of the name that was given.
    """
    wanted = name or DEFAULT_CONNECTION
    trouble = _trouble_with(wanted)
    if trouble is not None and name is not None:
        raise _BadInputError(f"--gcp-conn-id {name}: there is no such Airflow connection. {trouble}".strip())
    if trouble is not None:
        # One without anything in it means application default credentials.
        os.environ[_variable(wanted)] = "google-cloud-platform://"
    return wanted


def _trouble_with(name: str) -> str | None:
    """Why there is no such connection; None when there is one."""
    from airflow.providers.common.compat.sdk import BaseHook, conf

    if _variable(name) in os.environ:
        return None
    has_database = _has_database(str(conf.get("database", "sql_alchemy_conn", fallback="")))
    if has_database:
        # Airflow 3 asks its own database only for connections in a process that says so.
        os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    elif not conf.get("secrets", "backend", fallback=""):
        return "There is no database of Airflow here, and no secrets backend."
    try:
        BaseHook.get_connection(name)
    except Exception as error:  # noqa: BLE001 - a database that is old, or does not answer, says so in many ways
        return str(error)
    return None


def _variable(name: str) -> str:
    return f"AIRFLOW_CONN_{name.upper()}"


def _has_database(address: str) -> bool:
    """Whether there may be a database of Airflow: SQLite would make an empty one at the first look."""
    kind, _, path = address.partition(":///")
    return not kind.startswith("sqlite") or (Path(path).is_file() and Path(path).stat().st_size > 0)


def _import_quietly() -> None:
    """Import Airflow without what it has to say about its own settings and deprecations."""
    with contextlib.redirect_stderr(io.StringIO()):
        pass
    # Airflow sets both up anew at its import. A failed look into its database is logged by 2.11 with all its traceback.
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


@contextlib.contextmanager
def _own_output() -> Iterator[TextIO]:
    """The standard output for this command alone; what others write there goes to the standard error output."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as output:
            yield output
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


if __name__ == "__main__":
    sys.exit(main())
