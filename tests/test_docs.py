"""The documentation says nothing that a program can tell to be wrong: names, parameters, options, links, code."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from emulator_support.process import EmulatorProcess
from vertex_ray_emulator import admin, cli, faults

from airflow_provider_vertex_ray import errors, get_provider_info
from airflow_provider_vertex_ray.core.http import google_call as cloud_call
from airflow_provider_vertex_ray.core.http import transport
from airflow_provider_vertex_ray.core.job import log_follower as job_logs
from airflow_provider_vertex_ray.core.job import packages
from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES
from airflow_provider_vertex_ray.core.monitoring import condition as metric_condition
from airflow_provider_vertex_ray.core.monitoring import logs
from airflow_provider_vertex_ray.core.monitoring import summary as metric_summary
from airflow_provider_vertex_ray.core.monitoring.log_query import SEVERITIES
from airflow_provider_vertex_ray.core.monitoring.metric_query import METRICS
from airflow_provider_vertex_ray.core.preflight import quotas, ray_versions
from airflow_provider_vertex_ray.core.preflight import requirements as preflight_needs
from airflow_provider_vertex_ray.core.preflight import run as cloud_preflight
from airflow_provider_vertex_ray.core.preflight.report import CHECKS, Status
from airflow_provider_vertex_ray.decorators.job import PLAIN_CONTEXT, _VertexRayDecoratedOperator
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.hooks import preflight_command
from airflow_provider_vertex_ray.hooks.preflight import VertexRayPreflightHook
from airflow_provider_vertex_ray.operators import monitoring, monitoring_logs
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.plugins.page import log as page_log
from airflow_provider_vertex_ray.plugins.page import reader as page_reader
from airflow_provider_vertex_ray.plugins.page import timeline as page_timeline
from airflow_provider_vertex_ray.plugins.page.sources import MOST_SOURCES, REAPED_LABELS, Source, configured_sources
from airflow_provider_vertex_ray.remote import runner
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.task_groups.cluster import VertexRayCluster
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from benchmarks import imports, requests_per_job

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "airflow_provider_vertex_ray"
PAGES = {path.name: path.read_text() for path in sorted((REPOSITORY / "docs").glob("*.md"))}
PAGES["README.md"] = (REPOSITORY / "README.md").read_text()
EVERYTHING = "\n".join(PAGES.values())
DOCS = "\n".join(text for name, text in PAGES.items() if name != "README.md")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NOT_OURS = {"ValueError", "ZeroDivisionError", "RayTaskError"}


def _public(kinds: tuple[str, ...]) -> dict[str, type]:
    """The classes of our own that Airflow is told of, by name."""
    modules = [name for kind in kinds for entry in get_provider_info()[kind] for name in entry["python-modules"]]
    return {
        name: value
        for module in modules
        for name, value in vars(import_module(module)).items()
        if inspect.isclass(value) and value.__module__ == module and name.startswith("VertexRay")
    }


TASKS = _public(("operators", "sensors"))


def _all_errors() -> set[str]:
    found, todo = {InvalidArgumentError.__name__}, [errors.VertexRayError]
    while todo:
        kind = todo.pop()
        found.add(kind.__name__)
        todo += kind.__subclasses__()
    return {name for name in found if name == "InvalidArgumentError" or hasattr(errors, name)}


def _tables(text: str) -> Iterator[list[list[str]]]:
    """Each table's rows with the heading first, a cell as its text without the marks of code."""
    rows: list[list[str]] = []
    # The last one has no line after it.
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
        elif rows:
            yield [rows[0], *rows[2:]]
            rows = []


def _section(heading: str) -> str:
    """What follows a heading in docs/, up to the next heading."""
    match = re.search(rf"^#+ `?{re.escape(heading)}`?$\n(.*?)(?=^#+ |\Z)", DOCS, re.MULTILINE | re.DOTALL)
    assert match, f"no heading {heading}"
    return match[1]


def _slugs(text: str) -> set[str]:
    plain = FENCE.sub("", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(plain)}


def _blocks(language: str) -> list[Any]:
    return [
        pytest.param(match[2], id=f"{name}-{place}")
        for name, text in PAGES.items()
        for place, match in enumerate(FENCE.finditer(text))
        if match[1] == language
    ]


def test_there_is_a_page_for_each_subject_and_the_index_leads_to_it() -> None:
    pages = {
        "getting-started",
        "preflight",
        "clusters",
        "sharing",
        "cost",
        "jobs",
        "functions",
        "bigquery",
        "models",
        "monitoring",
        "page",
        "ray-client",
        "emulator",
        "service-facts",
        "development",
    }
    assert {name.removesuffix(".md") for name in PAGES} == pages | {"index", "README"}
    assert {f"{page}.md" for page in pages} <= set(LINK.findall(PAGES["index.md"]))


def test_every_class_that_is_named_exists() -> None:
    named = set(re.findall(r"\bVertexRay\w+", EVERYTHING)) - {"VertexRayError", "VertexRayTaskError"}
    known = set(_public(("operators", "sensors", "hooks", "triggers")))
    known |= {path.rpartition(".")[2] for path in get_provider_info()["extra-links"]} | {VertexRayCluster.__name__}
    assert named <= known


def test_every_error_that_is_named_exists() -> None:
    named = set(re.findall(r"\b[A-Z]\w+Error\b", EVERYTHING)) - NOT_OURS
    assert named <= _all_errors()


def test_every_error_has_its_row() -> None:
    rows = {row[0] for text in PAGES.values() for table in _tables(text) for row in table if table[0][0] == "error"}
    assert rows - {"error"} == _all_errors() - {"VertexRayError"}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_operator_and_sensor_is_documented_with_its_parameters(name: str) -> None:
    # The base classes have the connection's parameters, which are documented once.
    shared = set(_parameters(VertexRayBaseOperator)) | ({"mode"} if name.endswith("Sensor") else set())
    if issubclass(TASKS[name], VertexRaySubmitJobOperator) and TASKS[name] is not VertexRaySubmitJobOperator:
        shared |= set(_parameters(VertexRaySubmitJobOperator))
    own = {key: default for key, default in _parameters(TASKS[name]).items() if key not in shared}
    (table,) = (table for table in _tables(_section(name)) if table[0][0] == "parameter")
    assert {row[0]: row[1] for row in table[1:]} == own
    for row in table[1:]:
        assert ("(templated)" in row[2]) == (row[0] in TASKS[name].template_fields), row  # type: ignore[attr-defined]


def test_the_decorators_own_parameters_are_documented() -> None:
    (table,) = (table for table in _tables(PAGES["functions.md"]) if table[0][0] == "parameter")
    of_airflow = {"python_callable", "op_args", "op_kwargs"}
    own = set(_parameters(_VertexRayDecoratedOperator)) - set(_parameters(TASKS["VertexRaySubmitJobOperator"]))
    assert {row[0] for row in table[1:]} == own - of_airflow
    assert {row[0] for row in table[1:] if "(templated)" in row[2]} <= set(_VertexRayDecoratedOperator.template_fields)


def _parameters(task: type) -> dict[str, str]:
    """Keyword parameters of our own classes in the hierarchy, and their defaults as Python writes them."""
    found: dict[str, str] = {}
    for base in reversed(task.__mro__):
        if base.__module__.startswith("airflow_provider_vertex_ray") and "__init__" in vars(base):
            for key, parameter in inspect.signature(vars(base)["__init__"]).parameters.items():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    empty = parameter.default is parameter.empty
                    found[key] = "required" if empty else repr(parameter.default)
    return found


def test_the_connections_parameters() -> None:
    (table,) = (table for table in _tables(_section("Connection")) if table[0][0] == "parameter")
    assert {row[0]: row[1] for row in table[1:]} == _parameters(VertexRayBaseOperator)
    assert set(_parameters(VertexRayBaseSensor)) == {*_parameters(VertexRayBaseOperator), "deferrable"}
    for task in TASKS.values():
        assert set(_parameters(VertexRayBaseOperator)) <= set(task.template_fields)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name", ["VertexRayClusterHook", "VertexRayJobHook", "VertexRayMonitoringHook", "VertexRayPreflightHook"]
)
def test_the_hooks_methods(name: str) -> None:
    hooks = _public(("hooks",))
    for kind, more in ((name, set[str]()), (name.replace("Hook", "AsyncHook"), {"tail_job_logs", "jobs", "log_pages"})):
        own = {key for key, value in vars(hooks[kind]).items() if inspect.isfunction(value) and key[0] != "_"}
        for method in own - more:
            assert f"`{method}`" in DOCS, method
    sentence = re.search(rf"`{name}` has (.*?);", DOCS, re.DOTALL)
    assert sentence
    for method in re.findall(r"`(\w+)`", sentence[1]):
        assert hasattr(hooks[name], method)


@pytest.mark.parametrize("code", _blocks("python"))
def test_code_compiles_and_what_uses_this_package_runs(code: str) -> None:
    compiled = compile(code, "<docs>", "exec")
    # README's DAG is for Airflow 3, where 2.11 has no airflow.sdk.
    if "airflow_provider_vertex_ray" in code and "from airflow.sdk" not in code:
        exec(compiled, {"__name__": "docs"})


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_lead_somewhere(name: str) -> None:
    folder = REPOSITORY if name == "README.md" else REPOSITORY / "docs"
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "`code`", FENCE.sub("", PAGES[name]))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (folder / path).resolve() if path else folder / name
        assert file.exists(), target
        assert not anchor or anchor in _slugs(file.read_text()), target


def test_files_and_modules_that_are_named_exist() -> None:
    named = {path for path in re.findall(r"`([\w./-]+\.(?:py|txt))`", EVERYTHING) if "*" not in path}
    assert {path for path in named if not (REPOSITORY / path).is_file() and not (PACKAGE / path).is_file()} == set()
    for module in re.findall(r"python -m ([\w.]+)", EVERYTHING):
        import_module(module)


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", EVERYTHING)) | set(
        re.findall(r"^make ([a-z]+)", EVERYTHING, re.MULTILINE)
    )
    assert {"demo", "test", "lint", "bench", "install"} <= named <= targets


def _commands() -> dict[str, argparse.ArgumentParser]:
    parser = cli._parser()
    (choices,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(choices)


def test_options_that_are_named_exist() -> None:
    known = {
        option for parser in _commands().values() for action in parser._actions for option in action.option_strings
    }
    known |= set(_preflight_options())
    # In Python blocks they are those of the reader's own scripts.
    text = FENCE.sub(lambda block: "" if block[1] == "python" else block[0], EVERYTHING)
    # Those of Google's own command are not ours.
    text = re.sub(r"gcloud [^`\n]*", "", text)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    assert {"--project", "--state-dir", "--json"} <= named
    assert named <= known


def _preflight_options() -> list[str]:
    return [option for action in preflight_command._parser()._actions for option in action.option_strings]


def test_the_preflights_options_and_checks() -> None:
    page = PAGES["preflight.md"]
    (options,) = (table for table in _tables(page) if table[0][0] == "option")
    documented = {option.strip("` ") for row in options[1:] for option in row[0].split(",")}
    assert documented == set(_preflight_options()) - {"-h", "--help"}
    (checks,) = (table for table in _tables(page) if table[0][0] == "check")
    assert tuple(row[0] for row in checks[1:]) == CHECKS
    (statuses,) = (table for table in _tables(page) if table[0][0] == "status")
    assert [row[0] for row in statuses[1:]] == [status.value for status in Status]
    looks = {permission for row in checks[1:] for permission in re.findall(r"[a-z]+\.[A-Za-z]+\.[a-z]+", row[4])}
    assert looks <= set(preflight_needs.ROLES)
    assert set(re.findall(r"`(roles/[\w.]+)`", page)) <= set(preflight_needs.ROLES.values())


def test_the_preflights_sample_is_what_it_prints(fake_emulator: EmulatorProcess) -> None:
    spec, script = (json.loads(match[2]) for match in FENCE.finditer(PAGES["preflight.md"]) if match[1] == "json")
    (sample,) = (match[2] for match in FENCE.finditer(PAGES["preflight.md"]) if match[1] == "text")
    fake_emulator.admin("PUT", "project", script)
    table = VertexRayPreflightHook(location="us-central1").preflight(spec).table()
    # Those depend on the day and on this process.
    assert [line for line in table if " versions " not in line] == [
        line for line in sample.splitlines() if " versions " not in line
    ]


def test_commands_that_are_named_exist() -> None:
    named = set(re.findall(r"vertex-ray-emulator ([a-z]+)", EVERYTHING))
    assert {"start", "status", "env"} == set(_commands())
    assert {"start", "status", "env"} <= named
    assert f"exit code is {cli.NOT_RUNNING}" in PAGES["emulator.md"]


def test_the_options_of_start_and_their_defaults() -> None:
    (table,) = (table for table in _tables(PAGES["emulator.md"]) if table[0][0] == "option")
    documented = {row[0]: row[1] for row in table[1:]}
    actions = [action for action in _commands()["start"]._actions if action.dest not in ("help", "state_dir")]
    assert documented == {action.option_strings[0]: str(action.default) for action in actions}


def test_the_fields_of_a_fault_and_their_values() -> None:
    (table,) = (table for table in _tables(PAGES["emulator.md"]) if table[0][0] == "field")
    documented = {row[0]: (row[1], row[2]) for row in table[1:]}
    fields = {field.name: field for field in dataclasses.fields(faults.Fault) if field.name != "id"}
    assert set(documented) == set(fields)
    for name, field in fields.items():
        default = "required" if field.default is dataclasses.MISSING else field.default
        assert documented[name][0] == ("null" if default is None else str(default)), name
    for name, kind in (
        ("scope", faults.Scope), ("action", faults.Action), ("outcome", faults.Outcome),
    ):  # fmt: skip
        # The action "outcome" goes with the scope "provisioning" by itself.
        assert set(get_args(kind)) - {"outcome"} <= set(re.findall(r"\w+", documented[name][1])), name
    for part in admin.PARTS:
        assert f'"{part}"' in PAGES["emulator.md"] or f"`{part}`" in PAGES["emulator.md"]


def test_what_the_emulator_is_said_to_serve_it_serves(fake_emulator: EmulatorProcess) -> None:
    requests = re.findall(r"^\| `(GET|POST) (/emulator/[\w/]+)`.*$", PAGES["emulator.md"], re.MULTILINE)
    rows = dict.fromkeys(requests)
    assert len(rows) >= 8
    deletable = [path for verb, path in rows if re.search(rf"`{verb} {path}`.*`DELETE`", PAGES["emulator.md"])]
    for verb, path in [*rows, *(("DELETE", path) for path in deletable)]:
        status, answer = fake_emulator.request(verb, path, {} if verb == "POST" else None)
        # A request without its arguments is refused, but not as one that there is not.
        assert status in (200, 400, 404), (verb, path, answer)
        assert "There is no GET" not in str(answer), path
        assert "There is no POST" not in str(answer), path
        assert "There is no DELETE" not in str(answer), path
    assert "There is no GET" in str(fake_emulator.request("GET", "/emulator/nothing")[1])


def test_the_faults_in_the_example_are_taken(fake_emulator: EmulatorProcess) -> None:
    (code,) = (match[2] for match in FENCE.finditer(PAGES["emulator.md"]) if "def rehearse" in match[2])
    names: dict[str, Any] = {}
    exec(code, names)
    names["rehearse"](fake_emulator.host)
    assert len(fake_emulator.admin("GET", "faults")["faults"]) == 4


def test_the_options_of_the_page() -> None:
    tables = {table[0][0]: table for table in _tables(PAGES["page.md"])}
    options = get_provider_info()["config"]["vertex_ray"]["options"]
    assert {row[0] for row in tables["option"][1:]} == set(options)
    fields = {field.name: field for field in dataclasses.fields(Source)}
    assert {row[0] for row in tables["key"][1:]} == set(fields)
    assert {row[0] for row in tables["key"][1:] if row[1] == "required"} == {"location"}
    assert f"`{json.dumps(dict(REAPED_LABELS))}`" in PAGES["page.md"]
    for text in (match[2] for match in FENCE.finditer(PAGES["page.md"]) if match[1] == "ini"):
        parser = ConfigParser()
        parser.read_string(text)
        found = configured_sources(lambda name, parser=parser: parser["vertex_ray"].get(name, ""))  # type: ignore[misc]
        assert found.sources
        assert found.problems == ()


def test_figures_that_the_code_has_too() -> None:
    lost = inspect.signature(VertexRayJobTrigger).parameters["lost_timeout"].default
    said = {
        "preflight.md": [
            f"for {cloud_preflight.LONGEST:.0f} seconds at most",
            f"tried up to {cloud_call.ATTEMPTS} times",
            f"`warn` {ray_versions.NOTICE_DAYS} days before",
            f"last {quotas.WINDOW / 3600:.0f} hours",
        ],
        "jobs.md": [
            f"up to {packages.MAX_PACKAGE_BYTES >> 20} MiB",
            f"up to {packages.SMALL_PACKAGE_BYTES >> 20} MiB",
            f"Above {packages.SAID_FROM >> 20} MiB",
            f"after {job_logs.LONGEST_LINE} characters",
            f"up to {job_logs.KEPT_LINES} of up to {job_logs.LONGEST_KEPT} characters",
            f"for {lost:.0f} seconds",
            f"makes {3600 / requests_per_job.POLL_INTERVAL:.0f} requests an hour",
        ],
        "functions.md": [
            f"on a line of up to {MAX_RESULT_BYTES >> 10} KiB",
            f"more than {runner.DEEPEST} levels",
            *(f"`{name}`" for name in PLAIN_CONTEXT),
        ],
        "monitoring.md": [
            f"fit into {monitoring_logs.RETURNED_BYTES >> 10} KiB",
            f"up to {monitoring_logs.MOST_SHOWN} |",
            f"has\n{logs.PAGE_SIZE} entries",
            f"The same {job_logs.KEPT_LINES} lines",
            f"{metric_summary.MOST_POINTS} in all",
            f"a metric {metric_summary.MOST_SERIES} series",
            f"such that there are {monitoring.POINTS}",
            f"gives {monitoring.MOST_POINTS} at most",
            f"{metric_condition.STEPS} of them or one every {metric_condition.SHORTEST_STEP:.0f} to "
            f"{metric_condition.LONGEST_STEP:.0f} seconds",
            *(f"`{severity}`" for severity in SEVERITIES[1:]),
        ],
        "page.md": [
            f"last {page_log.LINES} lines",
            f"{page_log.MOST_READ >> 20} MiB of a log",
            f"{MOST_SOURCES} entries at most",
            f"{page_reader.MOST_CLUSTERS} clusters of a source, {page_reader.MOST_JOBS:,} jobs of a cluster",
            f"{page_timeline.MOST_BARS} jobs in the timeline",
            f"read again after {page_reader.FRESH:.0f} s, curves after {page_reader.METRICS_FRESH:.0f} s",
            f"each read ends after {page_reader.DEADLINE:.0f} s",
        ],
        "service-facts.md": [f"bodies of up to {packages.MAX_PACKAGE_BYTES >> 20} MiB"],
        "clusters.md": [
            f"tried up to {transport.RetryPolicy().attempts} times",
            ", ".join(map(str, sorted(transport.TRANSIENT)[:-1])),
        ],
        "development.md": [
            f"| {imports.GOAL_OVER_FLOOR:.2f} |",
            f"| {imports.GOAL_OF_PEER:.2f} |",
            f"| {requests_per_job.GOAL:.2f} |",
        ],
    }
    missing = [phrase for page, phrases in said.items() for phrase in phrases if phrase not in PAGES[page]]
    assert missing == []


def test_the_named_metrics_and_their_queries() -> None:
    (table,) = (table for table in _tables(PAGES["monitoring.md"]) if table[0][:2] == ["name", "what"])
    assert {row[0]: row[2] for row in table[1:]} == {name: query("etl") for name, query in METRICS.items()}


def test_the_benchmark_waits_as_the_operator_does_by_default() -> None:
    assert _parameters(TASKS["VertexRaySubmitJobOperator"])["poll_interval"] == repr(requests_per_job.POLL_INTERVAL)


def test_the_tested_versions_are_the_pinned_ones() -> None:
    (table,) = (table for table in _tables(PAGES["development.md"]) if table[0] == ["what", "tested"])
    tested = {row[0]: row[1] for row in table[1:]}
    for line in ("3.3.2", "2.11"):
        pins = dict(
            re.findall(r"^([\w.-]+)==(\S+)", (REPOSITORY / f"constraints/airflow-{line}.txt").read_text(), re.M)
        )
        assert pins["apache-airflow"] in tested["Airflow"].split(" and ")
        assert pins["apache-airflow-providers-google"] == tested["Google provider"]
        assert pins["google-cloud-aiplatform"] == tested["google-cloud-aiplatform"]
        assert pins["ray"] == tested["Ray"]


def test_the_renaming_is_told_once_in_the_docs() -> None:
    assert DOCS.count("Gemini Enterprise Agent Platform") == 1
    assert len(re.findall(r"Managed\s+Service\s+for\s+Apache\s+Airflow", DOCS)) == 1


def test_the_docs_say_that_nothing_was_tried_on_the_service() -> None:
    assert re.search(r"ever\s+run against the real service\*\*", PAGES["index.md"])
    assert re.search(r"never\s+with\s+the\s+service\s+itself", PAGES["emulator.md"])
