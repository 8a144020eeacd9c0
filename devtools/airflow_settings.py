"""The configuration of a small, fast, private Airflow, as environment variables.

The differences between Airflow 3 and 2.11 are confined to this module.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

# Airflow 3's simple auth manager has an "everybody is admin" switch. On 2.11 the anonymous role serves the same
# purpose. The web server listens on 127.0.0.1 only.
_FAB_CONFIG = """\
AUTH_ROLE_PUBLIC = "Admin"
WTF_CSRF_ENABLED = False
"""

_REPOSITORY = Path(__file__).resolve().parent.parent
_SIMPLE_AUTH_MANAGER = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"


@dataclass(frozen=True)
class Component:
    """One long-running process of Airflow.

    :param name: name of the component and of its log file.
    :param arguments: the module to run (``python -m``) and its arguments.
    :param job_type: type of its row in the ``job`` table, whose heartbeat shows that it works; None if it has no row.
    :param grace: seconds to wait between SIGTERM and SIGKILL.
    """

    name: str
    arguments: tuple[str, ...]
    job_type: str | None
    grace: float


@dataclass(frozen=True)
class AirflowSettings:
    """Location and size of a private Airflow.

    :param home: folder for AIRFLOW_HOME, configuration and logs.
    :param slots: number of tasks that run at once (``[core] parallelism``).
    :param port: port of the API server (web server on 2.11) on 127.0.0.1.
    :param triggerers: number of triggerers.
    :param health_seconds: seconds without a heartbeat after which a triggerer counts as dead; the scheduler and tasks
        have 40 s; None: Airflow's defaults (30 s, and 300 s for a task)
    :param only: names of the components to run; None: all of them.
    :param users: on Airflow 3, role and password of each user by name; None: everybody is admin.
    """

    home: Path
    slots: int
    port: int
    triggerers: int = 1
    health_seconds: int | None = None
    only: tuple[str, ...] | None = None
    users: Mapping[str, tuple[str, str]] | None = None

    @property
    def major(self) -> int:
        """Major version of the Airflow that is installed in this environment."""
        return int(version("apache-airflow").split(".")[0])

    @property
    def logs(self) -> Path:
        """Root of the task logs."""
        return self.home / "logs"

    @property
    def dags(self) -> Path:
        """The DAGs folder."""
        return self.home / "dags"

    @property
    def _passwords(self) -> Path:
        return self.home / "passwords.json"

    @property
    def web_url(self) -> str:
        """Address of the user interface; it requires a login only if there are ``users``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def health_url(self) -> str:
        """Address that answers 200 as soon as the API server is ready."""
        return self.web_url + ("/api/v2/monitor/health" if self.major >= 3 else "/health")

    @property
    def components(self) -> tuple[Component, ...]:
        """The components to run.

        The log servers, which would bind every interface, are left out: the logs are read from the same disk.
        """
        return tuple(each for each in self._all_components() if self.only is None or each.name in self.only)

    def _all_components(self) -> tuple[Component, ...]:
        scheduler = Component("scheduler", ("airflow", "scheduler", "--skip-serve-logs"), "SchedulerJob", 10)
        names = ["triggerer", *(f"triggerer-{n}" for n in range(2, self.triggerers + 1))]
        triggerer = ("airflow", "triggerer", "--skip-serve-logs")
        triggerers = [Component(name, triggerer, "TriggererJob", 10) for name in names]
        if self.major >= 3:
            api = ("airflow", "api-server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1")
            return (
                Component("api-server", api, None, 10),
                Component("dag-processor", ("airflow", "dag-processor"), "DagProcessorJob", 5),
                scheduler,
                *triggerers,
            )
        return (Component("webserver", self._web_server_2(), None, 5), scheduler, *triggerers)

    def _web_server_2(self) -> tuple[str, ...]:
        """Return what ``airflow webserver`` runs, without its monitor.

        The monitor counts every child of the server as a worker, even the ``file`` that the import of croniter
        starts. If it sees that one, and the server is not up 10 s later, it waits for a worker that never comes, and
        ends the server after two minutes.
        """
        server = ("--bind", f"127.0.0.1:{self.port}", "--workers", "1", "--timeout", "120", "--preload")
        settings = ("--config", "python:airflow.www.gunicorn_config", "--access-logfile", "-", "--error-logfile", "-")
        return ("gunicorn", *server, *settings, "airflow.www.app:cached_app()")

    def write_files(self, dag_folders: Sequence[Path]) -> None:
        """Create the folders, and link the folders of DAG files."""
        self.logs.mkdir(parents=True)
        self.dags.mkdir()
        for folder in dag_folders:
            (self.dags / folder.name).symlink_to(folder.resolve(), target_is_directory=True)
        (self.home / "webserver_config.py").write_text(_FAB_CONFIG)
        if self.users is not None:
            passwords = {name: password for name, (_, password) in self.users.items()}
            self._passwords.write_text(json.dumps(passwords))

    def environment(self, database: str, extra: Mapping[str, str], python_path: Sequence[Path]) -> dict[str, str]:
        """Return the complete environment of Airflow's processes.

        Variables of the caller's environment that configure Airflow are dropped, so that no other settings apply.

        :param database: user, password, host, port and name of the Postgres database.
        :param extra: variables to add.
        :param python_path: folders to import from.
        """
        inherited = {k: v for k, v in os.environ.items() if "AIRFLOW" not in k}
        paths = [*map(str, python_path), str(_REPOSITORY), *filter(None, [inherited.get("PYTHONPATH")])]
        inherited["PYTHONPATH"] = os.pathsep.join(paths)
        # Task processes find commands here, as in an activated environment.
        inherited["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        inherited["no_proxy"] = inherited["NO_PROXY"] = "127.0.0.1,localhost"
        own = {f"AIRFLOW__{k.replace('.', '__').upper()}": v for k, v in self._options(database).items()}
        own["AIRFLOW_HOME"] = str(self.home)
        own["PYTHONUNBUFFERED"] = "1"
        return {**inherited, **own, **extra}

    def _options(self, database: str) -> dict[str, str]:
        options = {
            "core.executor": "LocalExecutor",
            "core.parallelism": str(self.slots),
            # Only the slots limit how many tasks run at once.
            "core.max_active_tasks_per_dag": "1000",
            "core.dags_folder": str(self.dags),
            "core.load_examples": "False",
            "core.dags_are_paused_at_creation": "False",
            "core.fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            # The default queries the name service, which may be slow or absent.
            "core.hostname_callable": "devtools.airflow_hostname.component_hostname",
            "database.sql_alchemy_conn": f"postgresql+psycopg2://{database}",
            "database.load_default_connections": "False",
            "logging.base_log_folder": str(self.logs),
            "scheduler.scheduler_idle_sleep_time": "0.25",
            "scheduler.job_heartbeat_sec": "2",
            "triggerer.job_heartbeat_sec": "2",
            "scheduler.enable_health_check": "False",
            "usage_data_collection.enabled": "False",
        }
        if self.health_seconds is not None:
            seconds = str(self.health_seconds)
            timeout = "task_instance_heartbeat_timeout" if self.major >= 3 else "scheduler_zombie_task_threshold"
            check = (
                "task_instance_heartbeat_timeout_detection_interval" if self.major >= 3 else "zombie_detection_interval"
            )
            options |= {
                "triggerer.triggerer_health_check_threshold": seconds,
                # On a busy machine heartbeats are late without anything being dead, and a scheduler that takes itself
                # for dead resets the tasks that it runs.
                "scheduler.scheduler_health_check_threshold": "40",
                f"scheduler.{timeout}": "40",
                # Airflow 2 reports a dead task at each check until its DAG processor has handled the first report,
                # and the second report then fails the next try.
                f"scheduler.{check}": "3" if self.major >= 3 else "10",
                "scheduler.orphaned_tasks_check_interval": "5",
                "scheduler.trigger_timeout_check_interval": "5",
            }
        return {**options, **(self._options_3() if self.major >= 3 else self._options_2())}

    def _options_3(self) -> dict[str, str]:
        bundle = {
            "name": "dags-folder",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(self.dags)},
        }
        return {
            "core.auth_manager": _SIMPLE_AUTH_MANAGER,
            **self._users_3(),
            "core.execution_api_server_url": f"{self.web_url}/execution/",
            "api.host": "127.0.0.1",
            "api.port": str(self.port),
            "api.base_url": self.web_url,
            "api.workers": "1",
            "api.secret_key": secrets.token_hex(32),
            "api_auth.jwt_secret": secrets.token_hex(32),
            # With two tasks starting at once on a small machine, an answer may take more than 5 s.
            "workers.execution_api_timeout": "30",
            # A task's supervisor that just misses the exit of its task sleeps this long (default 5 s). Its slot
            # stays occupied, and the scheduler fails a deferred task that is resumed meanwhile
            # ("executor reported that the task instance finished with state success, but ... is queued").
            "workers.min_heartbeat_interval": "1",
            "dag_processor.dag_bundle_config_list": json.dumps([bundle]),
            # Look for new files often, but do not waste time parsing the same ones again.
            "dag_processor.refresh_interval": "5",
            "dag_processor.min_file_process_interval": "3600",
        }

    def _users_3(self) -> dict[str, str]:
        if self.users is None:
            return {"core.simple_auth_manager_all_admins": "True"}
        return {
            "core.simple_auth_manager_users": ",".join(f"{name}:{role}" for name, (role, _) in self.users.items()),
            "core.simple_auth_manager_passwords_file": str(self._passwords),
        }

    def _options_2(self) -> dict[str, str]:
        return {
            "webserver.base_url": self.web_url,
            "webserver.secret_key": secrets.token_hex(32),
            "webserver.config_file": str(self.home / "webserver_config.py"),
            "api.auth_backends": "airflow.api.auth.backend.default",
            "scheduler.dag_dir_list_interval": "5",
            "scheduler.min_file_process_interval": "3600",
        }
