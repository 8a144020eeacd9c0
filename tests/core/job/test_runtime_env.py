"""A runtime environment, judged: what is put together, what is refused and how it is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.job.runtime_env import KNOWN_FIELDS, is_local, runtime_environment
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from tests.support.ids import case_id


class Later:
    """As much of an XComArg as is looked at."""

    def iter_references(self) -> None:
        raise NotImplementedError


def test_nothing() -> None:
    assert runtime_environment(None) == {}
    assert runtime_environment({}, "", {}, [], []) == {}
    assert runtime_environment({"pip": [], "env_vars": {}, "conda": None}) == {}


def test_the_parameters_are_put_into_it() -> None:
    given: dict[str, Any] = {"pip": ["a"], "env_vars": {"A": "1", "B": "1"}}
    found = runtime_environment(given, "/code", {"B": "2"}, ("/code/mod", "gs://b/x.whl"), ("*.bin",))
    assert found == {
        "pip": ["a"],
        "working_dir": "/code",
        "py_modules": ["/code/mod", "gs://b/x.whl"],
        "excludes": ["*.bin"],
        "env_vars": {"A": "1", "B": "2"},
    }
    assert given == {"pip": ["a"], "env_vars": {"A": "1", "B": "1"}}


def test_paths_may_be_path_objects(tmp_path: Path) -> None:
    found = runtime_environment(None, tmp_path, py_modules=[tmp_path / "mod"])  # type: ignore[arg-type, list-item]
    assert json.loads(json.dumps(found)) == {"working_dir": str(tmp_path), "py_modules": [f"{tmp_path}/mod"]}


@pytest.mark.parametrize("field", ["working_dir", "py_modules", "excludes"])
def test_field_is_set_in_one_of_two_places(field: str) -> None:
    value: Any = "/a" if field == "working_dir" else ["a"]
    with pytest.raises(
        InvalidArgumentError, match=f"^Invalid value for {field}: .*Set {field} either here or in runtime_env"
    ):
        runtime_environment({field: value}, **{field: value})


@pytest.mark.parametrize(
    ("field", "known"),
    [("pips", "pip"), ("workingdir", "working_dir"), ("envvars", "env_vars"), ("py_module", "py_modules")],
)
def test_an_unknown_field_and_the_closest_known_one(field: str, known: str) -> None:
    with pytest.raises(
        InvalidArgumentError, match=rf"^Invalid value for runtime_env: '{field}'. .*Did you mean {known}\?"
    ):
        runtime_environment({field: []})


def test_an_unknown_field_that_is_like_none() -> None:
    with pytest.raises(
        InvalidArgumentError, match="^Invalid value for runtime_env: 'zzz'. .*The fields are working_dir, py_modules"
    ):
        runtime_environment({"zzz": 1})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"working_dir": "gs://b/a.tar"}, "working_dir"),
    ({"working_dir": "gs://b/a.whl"}, "working_dir"),
    ({"working_dir": "gs://b/a.ZIP"}, "working_dir"),
    ({"working_dir": "gcs://_ray_pkg_1"}, "working_dir"),
    ({"working_dir": "http://host/a.zip"}, "working_dir"),
    ({"working_dir": "pip://a.zip"}, "working_dir"),
    ({"working_dir": 3}, "working_dir"),
    ({"working_dir": " "}, "working_dir"),
    ({"py_modules": "mod"}, "py_modules"),
    ({"py_modules": ["a", 3]}, "py_modules[1]"),
    ({"py_modules": ["a", ""]}, "py_modules[1]"),
    ({"py_modules": ["https://host/a.tar.gz"]}, "py_modules[0]"),
    ({"py_modules": ["https://host/dir?file=a.zip"]}, "py_modules[0]"),
    ({"excludes": "*.bin"}, "excludes"),
    ({"excludes": ["a", 1]}, "excludes[1]"),
    ({"pip": ["a", 1]}, "runtime_env['pip'][1]"),
    ({"pip": 1}, "runtime_env['pip']"),
    ({"pip": "/nowhere/requirements.txt"}, "runtime_env['pip']"),
    ({"pip": {"packages": "/nowhere/requirements.txt"}}, "runtime_env['pip']['packages']"),
    ({"pip": {}}, "runtime_env['pip']['packages']"),
    ({"pip": {"packages": ["a"], "check": True}}, "runtime_env['pip']"),
    ({"pip": {"packages": ["a"], "pip_check": "yes"}}, "runtime_env['pip']['pip_check']"),
    ({"pip": {"packages": ["a"], "pip_version": 24}}, "runtime_env['pip']['pip_version']"),
    ({"uv": {"packages": ["a"], "uv_pip_install_options": "-v"}}, "runtime_env['uv']['uv_pip_install_options']"),
    ({"uv": {"packages": ["a"], "pip_check": True}}, "runtime_env['uv']"),
    ({"pip": ["a"], "uv": ["a"]}, "runtime_env"),
    ({"pip": ["a"], "conda": "base"}, "runtime_env"),
    ({"conda": 3}, "runtime_env['conda']"),
    ({"conda": "/nowhere/env.yml"}, "runtime_env['conda']"),
    ({"conda": {"a": {1, 2}}}, "runtime_env"),
    ({"config": {"timeout": 3}}, "runtime_env['config']"),
    ({"config": {"setup_timeout_seconds": 0}}, "runtime_env['config']['setup_timeout_seconds']"),
    ({"config": {"setup_timeout_seconds": True}}, "runtime_env['config']['setup_timeout_seconds']"),
    ({"config": {"eager_install": 1}}, "runtime_env['config']['eager_install']"),
    ({"config": {"log_files": ["a", 1]}}, "runtime_env['config']['log_files'][1]"),
    ({"config": []}, "runtime_env['config']"),
    ({"worker_process_setup_hook": 3}, "runtime_env['worker_process_setup_hook']"),
    ({"image_uri": "a/b:c", "pip": ["a"]}, "runtime_env['image_uri']"),
    ({"container": {"image": "a"}, "working_dir": "/a"}, "runtime_env['container']"),
    ({"env_vars": ["A"]}, "env_vars"),
    ({"env_vars": {"A": 1}}, "env_vars['A']"),
    ({"env_vars": {1: "A"}}, "env_vars[1]"),
]


@pytest.mark.parametrize(("environment", "field"), WRONG, ids=str)
def test_what_is_refused(environment: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        runtime_environment(environment)
    assert caught.value.field == field


def test_function_as_setup_hook_is_rejected() -> None:
    with pytest.raises(InvalidArgumentError, match="^Invalid value for runtime_env: .*Use JSON-serialisable values"):
        runtime_environment({"worker_process_setup_hook": print})


def test_requirements_are_read(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("\n# ours\nemoji==1.0\nrequests\n\n")
    lines = ["# ours", "emoji==1.0", "requests"]
    assert runtime_environment({"pip": str(file)}) == {"pip": lines}
    assert runtime_environment({"uv": str(file)}) == {"uv": lines}
    assert runtime_environment({"pip": {"packages": str(file), "pip_check": True}}) == {
        "pip": {"packages": lines, "pip_check": True}
    }


RIGHT_BEFORE_THE_RENDERING: list[dict[str, Any]] = [
    {"working_dir": "{{ var.value.code }}"},
    {"working_dir": "{{ scheme }}://b/a.tar"},
    {"py_modules": ["{{ module }}"]},
    {"py_modules": "{{ modules }}"},
    {"pip": "{{ requirements }}"},
    {"pip": "/nowhere/yet.txt"},
    {"pip": ["emoji=={{ version }}", Later()]},
    {"pip": {"packages": Later()}},
    {"conda": "/nowhere/yet.yml"},
    {"conda": Later()},
    {"env_vars": {"A": Later(), "B": "{{ b }}"}},
    {"config": "{{ config }}"},
]


@pytest.mark.parametrize("environment", RIGHT_BEFORE_THE_RENDERING, ids=case_id)
def test_run_time_values_pass_at_dag_parse(environment: dict[str, Any]) -> None:
    runtime_environment(environment, rendered=False)


def test_whole_arguments_that_come_later() -> None:
    later: Any = Later()
    runtime_environment(later, later, later, later, later, rendered=False)
    runtime_environment("{{ all_of_it }}", rendered=False)  # type: ignore[arg-type]


BEFORE = [(wrong, field) for wrong, field in WRONG if "nowhere" not in str(wrong) and "{1, 2}" not in str(wrong)]


@pytest.mark.parametrize(("environment", "field"), BEFORE, ids=str)
def test_what_can_be_known_at_dag_parse_is_refused_there(environment: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        runtime_environment(environment, rendered=False)
    assert caught.value.field == field


@pytest.mark.parametrize("value", [b"hunter2", ["hunter2"], 7771777])
def test_a_variable_s_value_is_never_shown(value: Any) -> None:
    for environment, variables in (({"env_vars": {"KEY": value}}, None), (None, {"KEY": value})):
        with pytest.raises(InvalidArgumentError) as caught:
            runtime_environment(environment, None, variables)
        assert not re.search("hunter2|7771777", str(caught.value))


def test_places() -> None:
    assert all(is_local(path) for path in ("a/b", "/a/b.zip", "~/a"))
    assert not any(is_local(uri) for uri in ("gs://b/a.zip", "gcs://a.zip", "https://h/a.zip"))


def test_all_fields_of_ray_are_known() -> None:
    if not pytest.importorskip("ray").__version__.startswith("2.47."):
        pytest.skip("the cluster's Ray is another one")
    from ray import runtime_env as ray

    # "docker" is there for a test of Ray's own only.
    assert set(KNOWN_FIELDS) - {"nsight"} == ray.RuntimeEnv.known_fields - {"docker"}
