"""A connection's credentials are those of the Google provider's base hook, whichever way they are found."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.google.common.hooks.base_google import GoogleBaseAsyncHook, GoogleBaseHook
from emulator_support.process import EmulatorProcess
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.hooks.calls.base import BaseCalls
from airflow_provider_vertex_ray.hooks.connection import PREFIX, GoogleConnection, is_plain
from tests.hooks.test_sync import HOOKS

ACCOUNT = "runner@key-project.iam.gserviceaccount.com"
# google-auth warns of files in which the type of the credentials is open; the Google provider reads such files.
pytestmark = pytest.mark.filterwarnings("ignore:The load_credentials_from_file method:DeprecationWarning")
SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"


USER = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
FEDERATED = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
    "credential_source": {"file": "/nowhere/token"},
}


def shown(value: Any) -> Any:
    """Credentials as something that can be compared: their kind and everything that they consist of."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [shown(each) for each in value]
    if isinstance(value, dict):
        return {str(key): shown(each) for key, each in value.items()}
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if type(value).__module__.startswith("google.auth.") or type(value).__module__.startswith("google.oauth2."):
        return kind, {key: shown(each) for key, each in sorted(vars(value).items())}
    return kind


def outcome(find: Callable[[], tuple[Any, Any]]) -> Any:
    """What a way to find credentials gives: the credentials and the project, or the error."""
    try:
        credentials, project = find()
    except Exception as error:
        # The base hook writes the text of a field into a file of its own.
        return type(error), re.sub(r"/tmp\w+", "/tmp", str(error))
    public = [
        getattr(credentials, name, None)
        for name in ("scopes", "default_scopes", "quota_project_id", "universe_domain", "service_account_email")
    ]
    return shown(credentials), [shown(each) for each in public], project


@contextmanager
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **variables: str) -> Iterator[pytest.MonkeyPatch]:
    """A process without credentials of its own: neither gcloud's nor a machine's."""
    with monkeypatch.context() as patch:
        for name in (
            "VERTEX_RAY_EMULATOR_HOST",
            "GOOGLE_CLOUD_PROJECT",
            "GCLOUD_PROJECT",
            "GOOGLE_CLOUD_QUOTA_PROJECT",
        ):
            patch.delenv(name, raising=False)
        patch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
        # gcloud itself would be asked for its project.
        patch.setenv("PATH", str(tmp_path / "bin"))
        patch.setenv("NO_GCE_CHECK", "true")
        for name, value in variables.items():
            patch.setenv(name, value)
        yield patch


def connect(patch: pytest.MonkeyPatch, extra: Any) -> None:
    patch.setenv("AIRFLOW_CONN_MINE", json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))


def both(chain: Any = None) -> tuple[Any, Any]:
    """The outcome of our way, and of the base hook's."""
    ours = outcome(lambda: GoogleConnection("mine", chain).credentials_and_project())
    theirs = outcome(lambda: GoogleBaseHook("mine", impersonation_chain=chain).get_credentials_and_project_id())
    # The oldest releases refuse Application Default Credentials without a project, even if the connection names one.
    # The project is asked for when it is needed, by an error of our own.
    if "key_secret_project_id" in str(theirs[-1]) and len(ours) > len(theirs):
        return ours, ours
    return ours, theirs


def written(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def places(tmp_path: Path, keyfile: dict[str, str]) -> dict[str, dict[str, str]]:
    """Environments, each with other Application Default Credentials."""
    key = written(tmp_path / "key.json", keyfile)
    name = "GOOGLE_APPLICATION_CREDENTIALS"
    return {
        "none": {},
        "a key": {name: key},
        "a key, another project": {name: key, "GOOGLE_CLOUD_PROJECT": "env-project"},
        "a key, a quota project": {name: key, "GOOGLE_CLOUD_QUOTA_PROJECT": "quota-project"},
        "a key of another universe": {
            name: written(tmp_path / "universe.json", {**keyfile, "universe_domain": "u.example"})
        },
        "a user": {name: written(tmp_path / "user.json", USER)},
        "a user with a quota project": {name: written(tmp_path / "quota.json", {**USER, "quota_project_id": "q-1"})},
        "a federated account": {name: written(tmp_path / "federated.json", FEDERATED)},
        "a missing file": {name: str(tmp_path / "missing.json")},
        "a file that is no JSON": {name: written(tmp_path / "broken.json", "{")},
        "a file of another type": {name: written(tmp_path / "type.json", {"type": "other"})},
        "a key without a private key": {name: written(tmp_path / "half.json", {**keyfile, "private_key": "no"})},
    }


PLAIN: list[dict[str, Any]] = [
    {},
    {"project": "named-project"},
    {"project": ""},
    {"project": None},
    {f"{PREFIX}project": "old-project"},
    {f"{PREFIX}project": "old-project", "project": "new-project"},
    # An empty field hides the prefixed one.
    {f"{PREFIX}project": "old-project", "project": ""},
    {"scope": SCOPE},
    {"scope": f" {SCOPE} , {SCOPE}s"},
    {"scope": ","},
    {"scope": " "},
    {f"{PREFIX}scope": SCOPE},
    {"num_retries": 3},
    {"num_retries": "many"},
    # What the form of Airflow's UI stores for fields that nobody filled in.
    {"project": "p-1", "key_path": "", "keyfile_dict": "", "is_anonymous": False, "num_retries": 5, "scope": ""},
    {f"{PREFIX}key_path": "", f"{PREFIX}is_anonymous": False, f"{PREFIX}impersonation_chain": None},
]
OTHERS: list[dict[str, Any]] = [
    {"key_path": "/nowhere/key.json"},
    {"key_path": "/nowhere/key.p12"},
    {f"{PREFIX}key_path": "/nowhere/key.json"},
    {"keyfile_dict": "{"},
    {"keyfile_dict": {"private_key": "no"}},
    {"key_path": "/nowhere/key.json", "keyfile_dict": {"private_key": "no"}},
    {"credential_config_file": FEDERATED},
    {"credential_config_file": "no JSON"},
    {"idp_issuer_url": "https://idp.example", "client_id": "c", "client_secret": "s"},
    {"idp_extra_params": "{"},
    {"impersonation_chain": "a@p-2.iam.gserviceaccount.com"},
    {"impersonation_chain": "a@p-2.iam.gserviceaccount.com, b@p-3.iam.gserviceaccount.com"},
    {"impersonation_chain": ["a@p-2.iam.gserviceaccount.com"]},
    {"is_anonymous": True},
    {"is_anonymous": True, "project": "p-1"},
    {"quota_project_id": "billing-project"},
    {"quota_project_id": "No Project"},
    {"quota_project_id": 5},
    {"scope": ["a", "b"]},
    {"scope": 7},
    {"scope": False},
    # Without a meaning today.
    {"universe_domain": "u.example"},
    {"some_later_field": 1},
]


@pytest.mark.parametrize("extra", PLAIN, ids=str)
def test_connection_without_a_choice_of_credentials_needs_no_base_hook(extra: dict[str, Any]) -> None:
    assert is_plain(extra)


@pytest.mark.parametrize("extra", [*OTHERS, ["project"], "project", None], ids=str)
def test_any_other_connection_is_left_to_the_base_hook(extra: Any) -> None:
    assert not is_plain(extra)


@pytest.mark.parametrize("extra", [*PLAIN, *OTHERS], ids=str)
def test_credentials_are_those_of_the_base_hook(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keyfile: dict[str, str], extra: dict[str, Any]
) -> None:
    everywhere = places(tmp_path, keyfile)
    for place, variables in everywhere.items() if extra in PLAIN else [("a user", everywhere["a user"])]:
        with surroundings(monkeypatch, tmp_path, **variables) as patch:
            connect(patch, extra)
            ours, theirs = both()
            assert ours == theirs, place


FIELDS = (
    *("project", "scope", "num_retries", "key_path", "keyfile_dict", "credential_config_file", "key_secret_project_id"),
    *("impersonation_chain", "is_anonymous", "idp_issuer_url", "client_id", "client_secret", "idp_extra_params"),
    *("quota_project_id", "universe_domain"),
)
KEYS = st.sampled_from([*FIELDS, *(PREFIX + name for name in FIELDS)])
VALUES = st.sampled_from(["", None, False, True, 0, 5, [], {}, "a", "p-12345", SCOPE, f"{SCOPE},x", ["a"], {"a": "b"}])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(extra=st.dictionaries(KEYS, VALUES, max_size=5), user=st.booleans())
def test_credentials_of_random_connections_are_those_of_the_base_hook(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, extra: dict[str, Any], user: bool
) -> None:
    variables = {"GOOGLE_APPLICATION_CREDENTIALS": written(tmp_path / "user.json", USER)} if user else {}
    with surroundings(monkeypatch, tmp_path, **variables) as patch:
        connect(patch, extra)
        ours, theirs = both()
        assert ours == theirs


@pytest.mark.parametrize("chain", [ACCOUNT, [ACCOUNT], ["a@p-2.iam.gserviceaccount.com", ACCOUNT]])
def test_impersonation_of_a_task_is_that_of_the_base_hook(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keyfile: dict[str, str], chain: Any
) -> None:
    with surroundings(monkeypatch, tmp_path, **places(tmp_path, keyfile)["a key"]) as patch:
        connect(patch, {})
        ours, theirs = both(chain)
        assert ours == theirs
        assert ours[2] == "key-project"


def test_machine_account_is_that_of_the_base_hook(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_emulator: EmulatorProcess
) -> None:
    from google.auth import compute_engine
    from google.auth.compute_engine import _metadata
    from google.auth.transport.requests import Request

    if hasattr(_metadata, "_METADATA_ROOT"):
        pytest.skip("this google-auth took the server's address as a default argument when it was imported")
    # As on a machine, in GKE and in Cloud Composer: google-auth asks the metadata server, here the emulator's.
    with surroundings(monkeypatch, tmp_path) as patch:
        patch.delenv("NO_GCE_CHECK")
        # Read when google-auth is imported.
        patch.setattr(_metadata, "_GCE_METADATA_HOST", fake_emulator.host)
        patch.setenv("GCE_METADATA_IP", fake_emulator.host)
        # GCE_METADATA_TIMEOUT is as well: 3 s are too few on a busy machine.
        for name in ("ping", "get"):
            patch.setattr(_metadata, name, functools.partial(getattr(_metadata, name), timeout=60))
        connect(patch, {})
        ours, theirs = both()
        assert ours == theirs
        credentials, project = GoogleConnection("mine").credentials_and_project()
        assert isinstance(credentials, compute_engine.Credentials)
        assert project == fake_emulator.project
        credentials.refresh(Request())
        assert credentials.token


def test_malformed_connection_parameters_are_named() -> None:
    with pytest.raises(InvalidArgumentError, match="gcp_conn_id"):
        GoogleConnection("")
    with pytest.raises(InvalidArgumentError, match="impersonation_chain"):
        GoogleConnection("mine", [])


@pytest.mark.parametrize("hook", HOOKS)
def test_public_hooks_are_hooks_of_the_google_provider(hook: Any) -> None:
    assert issubclass(hook, GoogleBaseHook)
    assert issubclass(hook.async_hook_class, GoogleBaseAsyncHook)
    assert issubclass(hook.async_hook_class, BaseCalls)


RUN = """
import json, sys
from tests.support.tasks import run_task
before = set(sys.modules)
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
operator = VertexRaySubmitJobOperator(
    task_id="task", cluster_id="shared", location="us-central1", entrypoint="true", deferrable=True
)
found = run_task(operator)
print(json.dumps([found["status"], sorted(set(sys.modules) - before)]))
"""


def test_job_runs_without_loading_the_base_hook(fake_emulator: EmulatorProcess) -> None:
    from tests.support.clusters import start

    start(fake_emulator)
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    # Airflow 2.11 itself has some of them.
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == "SUCCEEDED"
    assert "airflow_provider_vertex_ray.hooks.calls.job" in modules
    google = ("airflow.providers.google.common", "airflow.providers.google.cloud", "google.auth", "google.cloud.")
    assert [name for name in modules if name.startswith((*google, "googleapiclient", "gcloud", "requests"))] == []
