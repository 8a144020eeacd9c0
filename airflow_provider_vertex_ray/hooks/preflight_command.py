"""The command ``vertex-ray-preflight``, which runs the hook's checks without a DAG.

Only the table, or the JSON, goes to standard output; Airflow's own output goes to standard error.
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
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.preflight.report import CHECKS, Report, Status
from airflow_provider_vertex_ray.core.preflight.run import CREDENTIALS
from airflow_provider_vertex_ray.errors import InvalidArgumentError

OK, FAILED, BAD_INPUT = 0, 1, 2
DEFAULT_CONNECTION = "google_cloud_default"


class _BadInputError(Exception):
    """Raised for an unusable argument; the message says why."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vertex-ray-preflight",
        description="Check whether a Ray cluster could be created and used on Vertex AI. Nothing is changed.",
        epilog="Exit code: 0 if no check fails, 1 if a check fails, 2 for invalid input. "
        "Set VERTEX_RAY_EMULATOR_HOST to use the emulator.",
    )
    parser.add_argument("--project", help="project of the cluster (default: the connection's)")
    parser.add_argument("--location", required=True, help="region of the cluster, such as us-central1")
    parser.add_argument(
        "--spec",
        metavar="FILE",
        help="JSON file with the fields of a ClusterSpec, or - for standard input (default: an empty object)",
    )
    parser.add_argument("--bucket", help="bucket that jobs use, or gs://BUCKET/FOLDER")
    parser.add_argument("--lease-uri", help="folder with the leases of shared clusters: gs://BUCKET/FOLDER")
    parser.add_argument(
        "--check", dest="checks", action="append", choices=CHECKS, help="run only this check; may be repeated"
    )
    parser.add_argument(
        "--gcp-conn-id",
        help=f"Airflow connection (default: {DEFAULT_CONNECTION}, or Application Default Credentials)",
    )
    parser.add_argument(
        "--impersonation-chain",
        metavar="ACCOUNTS",
        help="service account to impersonate, or a chain separated by commas",
    )
    parser.add_argument(
        "--live-check",
        action="store_true",
        help="also look at the clusters that exist in the region, and ask their dashboards; nothing is changed",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    given = _parser().parse_args(arguments)
    with _own_output() as output:
        try:
            report = _run(given)
        except (InvalidArgumentError, _BadInputError) as error:
            print(f"vertex-ray-preflight: {error}", file=sys.stderr)
            return BAD_INPUT
        lines = [json.dumps(report.to_dict(), indent=2)] if given.json else report.table()
        print("\n".join(lines), file=output, flush=True)
    return FAILED if report.worst is Status.FAIL else OK


def _run(given: argparse.Namespace) -> Report:
    spec = ClusterSpec.from_value(_read_spec(given.spec))
    # Before importing Airflow, which takes seconds.
    spec.to_persistent_resource(validate_location(given.location, "--location"))
    if given.project is not None:
        validate_project(given.project, "--project")
    _import_quietly()
    from airflow_provider_vertex_ray.hooks.preflight import VertexRayPreflightHook

    chain = [each.strip() for each in (given.impersonation_chain or "").split(",") if each.strip()]
    hook = VertexRayPreflightHook(_connection(given.gcp_conn_id), chain or None, given.project, given.location)
    report = hook.preflight(spec, checks=given.checks, bucket=given.bucket, lease_uri=given.lease_uri)
    if given.live_check and not any(finding.check == CREDENTIALS for finding in report.findings):
        report = replace(report, findings=(*report.findings, *hook.live_check()))
    return report


def _read_spec(place: str | None) -> dict[str, Any]:
    if place is None:
        return {}
    try:
        text = sys.stdin.read() if place == "-" else Path(place).read_text("utf-8")
        found = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise _BadInputError(f"--spec {place}: The file cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise _BadInputError(f"--spec {place}: Use a JSON object with the fields of a ClusterSpec.")
    return found


def _connection(name: str | None) -> str:
    """Return the connection to use: the named one, or the default one, which need not exist.

    :raises _BadInputError: the named connection does not exist.
    """
    wanted = name or DEFAULT_CONNECTION
    problem = _connection_problem(wanted)
    if problem is not None and name is not None:
        raise _BadInputError(f"--gcp-conn-id {name}: The Airflow connection does not exist. {problem}".strip())
    if problem is not None:
        # An empty connection stands for Application Default Credentials.
        os.environ[_variable(wanted)] = "google-cloud-platform://"
    return wanted


def _connection_problem(name: str) -> str | None:
    """Return why a connection cannot be read; None if it can."""
    from airflow.providers.common.compat.sdk import BaseHook, conf

    if _variable(name) in os.environ:
        return None
    has_database = _has_database(str(conf.get("database", "sql_alchemy_conn", fallback="")))
    if has_database:
        # Airflow 3 reads connections from its database only in a process that is marked like this.
        os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    elif not conf.get("secrets", "backend", fallback=""):
        return "This environment has neither an Airflow database nor a secrets backend."
    try:
        BaseHook.get_connection(name)
    except Exception as error:  # noqa: BLE001 - an outdated or unreachable database raises many kinds of exceptions
        return str(error)
    return None


def _variable(name: str) -> str:
    return f"AIRFLOW_CONN_{name.upper()}"


def _has_database(address: str) -> bool:
    """Check whether Airflow may have a database; SQLite would create an empty one on first access."""
    kind, _, path = address.partition(":///")
    return not kind.startswith("sqlite") or (Path(path).is_file() and Path(path).stat().st_size > 0)


def _import_quietly() -> None:
    """Import Airflow without its messages about settings and deprecations."""
    # Airflow 3 does not write its messages by the module logging, and reads this level when it is imported.
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "CRITICAL"
    with contextlib.redirect_stderr(io.StringIO()):
        import airflow_provider_vertex_ray.hooks.preflight  # noqa: F401
    # After the import, which resets both. Airflow 2.11 logs a failed database access with its whole traceback.
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


@contextlib.contextmanager
def _own_output() -> Iterator[TextIO]:
    """Reserve standard output for this command; what others write there goes to standard error."""
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
