"""The command ``vertex-ray-migrate``."""

from __future__ import annotations

import argparse
import difflib
import io
import sys
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.migrate.rewriter import Cluster

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Show, or write, how DAG files of other Ray integrations are written for this package.

    :param arguments: arguments of the command; default: those of the process
    :return: exit code: 0 if nothing is left to do by hand, 1 if something is, 2 for an error
    """
    given = _parser().parse_args(arguments)
    try:
        import libcst  # noqa: F401
    except ImportError:
        print("Install it with: pip install 'airflow-provider-vertex-ray[migrate]'", file=sys.stderr)
        return 2
    from airflow_provider_vertex_ray.migrate.rewriter import Cluster

    cluster = Cluster(given.cluster_id, given.location)
    return max([_migrate(file, cluster, write=given.write) for file in given.files])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vertex-ray-migrate",
        description="Rewrite DAG files of the Google provider, of astro-provider-ray and of the Vertex AI SDK.",
    )
    parser.add_argument("files", nargs="+", type=Path, help="DAG files")
    parser.add_argument("--write", action="store_true", help="write the files; otherwise only show the difference")
    parser.add_argument("--cluster-id", help="cluster for the jobs of astro-provider-ray, whose connection names one")
    parser.add_argument("--location", help="region of that cluster, or of the one that the DAG creates")
    return parser


def _migrate(file: Path, cluster: Cluster, *, write: bool) -> int:
    from libcst import ParserSyntaxError

    from airflow_provider_vertex_ray.migrate.rewriter import migrate

    try:
        # As bytes, so that line endings, a byte order mark and the encoding stay as they are.
        content = file.read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding)
        found = migrate(text, cluster)
        migrated = found.text.encode(encoding)
    except (OSError, UnicodeError, SyntaxError, ParserSyntaxError) as error:
        print(f"{file}: {error}", file=sys.stderr)
        return 2
    lines = difflib.unified_diff(
        text.splitlines(keepends=True), found.text.splitlines(keepends=True), str(file), f"{file} (migrated)"
    )
    sys.stdout.writelines(lines)
    for line, note in found.changes:
        print(f"{file}:{line}: changed: {note}")
    for line, note in found.left:
        print(f"{file}:{line}: left to you: {note}")
    if write and migrated != content:
        file.write_bytes(migrated)
    return 1 if found.left else 0
