"""Ours against Ray's own RuntimeEnv: nothing passes here that Ray refuses, and Ray makes the same of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.job.runtime_env import is_local, runtime_environment
from airflow_provider_vertex_ray.errors import InvalidArgumentError

pytestmark = pytest.mark.sdk

FOLDER = "FOLDER"
"""Stands for the test's folder in generated paths."""

odd: st.SearchStrategy[Any] = st.sampled_from([0, 1.5, True, "", "x", [], ["x"], [1], {}, {"a": "b"}])
names = st.sampled_from(["emoji", "emoji==1.0", "requests>=2", "emoji"])
files = st.sampled_from([f"{FOLDER}/requirements.txt", f"{FOLDER}/empty.txt", f"{FOLDER}/nothing.txt"])
uris = st.sampled_from(
    [
        "gs://b/a.zip",
        "s3://b/a.whl",
        "https://h/a.b/c.zip?t=1",
        "https://h/a.tar",
        "gcs://_ray_pkg_1.zip",
        "http://h/a.zip",
        "file:///a/b.zip",
        "ftp://h/a.zip",
        "gs://b/.zip",
        FOLDER,
        f"{FOLDER}/module",
    ]
)
lists = st.lists(names, max_size=3)
pips = st.one_of(
    lists,
    files,
    st.fixed_dictionaries(
        {},
        optional={
            "packages": st.one_of(lists, files, odd),
            "pip_check": st.one_of(st.booleans(), odd),
            "pip_version": odd,
        },
    ),
    odd,
)
uvs = st.one_of(
    lists,
    files,
    st.fixed_dictionaries(
        {},
        optional={
            "packages": st.one_of(lists, odd),
            "uv_check": st.booleans(),
            "uv_version": odd,
            "uv_pip_install_options": st.one_of(lists, odd),
        },
    ),
    odd,
)
configs = st.fixed_dictionaries(
    {},
    optional={
        "setup_timeout_seconds": st.one_of(st.integers(-2, 2), odd),
        "eager_install": odd,
        "log_files": st.one_of(lists, odd),
    },
)
environments = st.fixed_dictionaries(
    {},
    optional={
        "working_dir": st.one_of(uris, odd),
        "py_modules": st.one_of(st.lists(uris, max_size=2), odd),
        "excludes": st.one_of(lists, odd),
        "pip": pips,
        "uv": uvs,
        "conda": st.one_of(st.sampled_from(["base", f"{FOLDER}/nothing.yml"]), st.just({"dependencies": ["a"]}), odd),
        "env_vars": st.one_of(st.dictionaries(st.sampled_from("AB"), st.sampled_from(["1", ""])), odd),
        "config": st.one_of(configs, odd),
        "worker_process_setup_hook": st.just("module.function"),
        "image_uri": st.sampled_from(["image:1", ""]),
    },
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("environment")
    (root / "requirements.txt").write_text("\nemoji==1.0\n# why\nrequests\n")
    (root / "empty.txt").write_text("")
    (root / "module").mkdir()
    return root


def outcome(environment: dict[str, Any]) -> dict[str, Any] | None:
    """What Ray makes of it; None when it refuses it."""
    from ray.runtime_env import RuntimeEnv

    try:
        made = RuntimeEnv(**environment).to_dict()
    except (TypeError, ValueError, AttributeError):
        return None
    # That Ray is there, which it notes for pip and conda. Excludes are applied here, not there.
    return {key: value for key, value in made.items() if key not in ("_ray_commit", "excludes")}


def is_empty(value: Any) -> bool:
    return value in ([], {}, "") or (isinstance(value, dict) and value.get("packages") == [])


def check_meaning(folder: Path, environment: dict[str, Any]) -> None:
    environment = json.loads(json.dumps(environment).replace(FOLDER, str(folder)))
    try:
        ours = runtime_environment(environment)
    except InvalidArgumentError:
        return
    places = [ours.get("working_dir", "/"), *ours.get("py_modules", [])]
    if any(is_local(place) and not Path(place).exists() for place in places):
        return  # Said when it is sent.
    # An empty one is none here, where Ray counts it for what may not go together.
    theirs = outcome({field: value for field, value in environment.items() if not is_empty(value)})
    assert theirs is not None, ours
    assert outcome(ours) == theirs


RULES: Any = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=300, **RULES)
@given(environments)
def test_what_passes_here_passes_there_and_means_the_same(folder: Path, environment: dict[str, Any]) -> None:
    check_meaning(folder, environment)


@pytest.mark.soak
@settings(max_examples=1500, **RULES)
@given(environments)
def test_what_passes_here_passes_there_for_many_environments(folder: Path, environment: dict[str, Any]) -> None:
    check_meaning(folder, environment)


# Each of these passes Ray's check and then fails on the cluster, or is ignored there.
STRICTER: list[dict[str, Any]] = [
    {"unknown": 1},
    {"working_dir": "gs://b/a.whl"},
    {"working_dir": "gcs://no_ending"},
    {"py_modules": ["pip://a"]},
    {"pip": {"packages": [1]}},
    {"config": {"unknown": 1}},
    {"config": {"setup_timeout_seconds": True}},
    {"worker_process_setup_hook": 3},
]


@pytest.mark.parametrize("environment", STRICTER, ids=str)
def test_what_ray_lets_pass_and_we_do_not(environment: dict[str, Any]) -> None:
    assert outcome(environment) is not None
    with pytest.raises(InvalidArgumentError):
        runtime_environment(environment)


ACCEPTED: list[dict[str, Any]] = [
    {"pip": ["emoji"], "env_vars": {"A": "b"}, "config": {"setup_timeout_seconds": -1, "eager_install": False}},
    {"uv": {"packages": ["emoji"], "uv_check": True, "uv_pip_install_options": ["--no-cache"]}},
    {"conda": {"dependencies": ["pip", {"pip": ["emoji"]}]}, "working_dir": "https://host/code.zip?token=1"},
    {"image_uri": "image:1", "env_vars": {"A": "b"}},
    {"container": {"image": "image:1"}, "config": {"eager_install": True}},
    {"py_modules": ["gs://b/a.whl", "s3://b/a.zip", "file:///opt/a.zip"], "worker_process_setup_hook": "a.b"},
    {"py_executable": "uv run", "mpi": {"worker_entry": "a.b"}, "nsight": "default", "java_jars": ["https://h/a.zip"]},
]


@pytest.mark.parametrize("environment", ACCEPTED, ids=str)
def test_what_both_take(environment: dict[str, Any]) -> None:
    assert runtime_environment(environment) == environment
    assert outcome(environment) is not None
