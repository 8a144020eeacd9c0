"""Check the documentation against the code: names, parameters, options, figures, links and code blocks."""

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
from airflow_provider_vertex_ray.core.http import google_call, transport
from airflow_provider_vertex_ray.core.job import log_follower, packages
from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES
from airflow_provider_vertex_ray.core.monitoring import condition, logs, summary
from airflow_provider_vertex_ray.core.monitoring.log_query import SEVERITIES
from airflow_provider_vertex_ray.core.monitoring.metric_query import METRICS
from airflow_provider_vertex_ray.core.preflight import quotas, ray_versions, requirements
from airflow_provider_vertex_ray.core.preflight import run as preflight_run
from airflow_provider_vertex_ray.core.preflight.report import CHECKS, Status
from airflow_provider_vertex_ray.decorators.job import PLAIN_CONTEXT, _VertexRayDecoratedOperator
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.hooks import preflight_command
from airflow_provider_vertex_ray.hooks.preflight import VertexRayPreflightHook
from airflow_provider_vertex_ray.migrate import command as migrate_command
from airflow_provider_vertex_ray.operators import monitoring, monitoring_logs
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.plugins.page import log as page_log
from airflow_provider_vertex_ray.plugins.page import reader as page_reader
from airflow_provider_vertex_ray.plugins.page import timeline as page_timeline
from airflow_provider_vertex_ray.plugins.page.sources import MOST_SOURCES, REAPED_LABELS, Source, configured_sources
from airflow_provider_vertex_ray.remote import values
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from airflow_provider_vertex_ray.task_groups.cluster import VertexRayCluster
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from benchmarks import imports, requests_per_job
from devtools import compat

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "airflow_provider_vertex_ray"
PAGES = {path.name: path.read_text() for path in sorted((REPOSITORY / "docs").glob("*.md"))}
PAGES["README.md"] = (REPOSITORY / "README.md").read_text()
ALL_TEXT = "\n".join(PAGES.values())
DOCS_TEXT = "\n".join(text for name, text in PAGES.items() if name != "README.md")

GITHUB = "https://github.com/airflow-provider-vertex-ray/airflow-provider-vertex-ray/"
RAW_FILES = "https://raw.githubusercontent.com/airflow-provider-vertex-ray/airflow-provider-vertex-ray/main/"
INDEX_PAGES = ("README.md", "emulator/README.md")
"""Shown by package indexes, where relative links lead nowhere."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FOREIGN_ERRORS = {"ValueError", "ZeroDivisionError", "RayTaskError"}


def _public_classes(kinds: tuple[str, ...]) -> dict[str, type]:
    """Return the package's own classes in the modules that are registered with Airflow, by name."""
    modules = [name for kind in kinds for entry in get_provider_info()[kind] for name in entry["python-modules"]]
    return {
        name: value
        for module in modules
        for name, value in vars(import_module(module)).items()
        if inspect.isclass(value) and value.__module__ == module and name.startswith("VertexRay")
    }


OPERATORS_AND_SENSORS = _public_classes(("operators", "sensors"))


def _documented_errors() -> set[str]:
    found, todo = {InvalidArgumentError.__name__}, [errors.VertexRayError]
    while todo:
        kind = todo.pop()
        found.add(kind.__name__)
        todo += kind.__subclasses__()
    return {name for name in found if name == "InvalidArgumentError" or hasattr(errors, name)}


def _tables(text: str) -> Iterator[list[list[str]]]:
    """Yield the rows of each table, header first; cells are stripped of backticks."""
    rows: list[list[str]] = []
    # The empty line ends a table at the end of the text.
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
        elif rows:
            yield [rows[0], *rows[2:]]
            rows = []


def _section(heading: str) -> str:
    """Return the text below a heading in docs/, up to the next heading."""
    match = re.search(rf"^#+ `?{re.escape(heading)}`?$\n(.*?)(?=^#+ |\Z)", DOCS_TEXT, re.MULTILINE | re.DOTALL)
    assert match, f"no heading {heading}"
    return match[1]


def _slugs(text: str) -> set[str]:
    plain = FENCE.sub("", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(plain)}


def _code_blocks(language: str) -> list[Any]:
    return [
        pytest.param(match[2], id=f"{name}-{place}")
        for name, text in PAGES.items()
        for place, match in enumerate(FENCE.finditer(text))
        if match[1] == language
    ]


def test_every_subject_has_a_page_that_the_index_links_to() -> None:
    pages = {
        "getting-started",
        "compatibility",
        "migration",
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
        "real-project",
        "development",
    }
    assert {name.removesuffix(".md") for name in PAGES} == pages | {"index", "README"}
    assert {f"{page}.md" for page in pages} <= set(LINK.findall(PAGES["index.md"]))


def test_documented_classes_exist() -> None:
    named = set(re.findall(r"\bVertexRay\w+", ALL_TEXT)) - {"VertexRayError", "VertexRayTaskError"}
    known = set(_public_classes(("operators", "sensors", "hooks", "triggers")))
    known |= {path.rpartition(".")[2] for path in get_provider_info()["extra-links"]} | {VertexRayCluster.__name__}
    assert named <= known


def test_documented_errors_exist() -> None:
    named = set(re.findall(r"\b[A-Z]\w+Error\b", ALL_TEXT)) - FOREIGN_ERRORS
    assert named <= _documented_errors()


def test_every_error_has_a_table_row() -> None:
    rows = {row[0] for text in PAGES.values() for table in _tables(text) for row in table if table[0][0] == "error"}
    assert rows - {"error"} == _documented_errors() - {"VertexRayError"}


@pytest.mark.parametrize("name", sorted(OPERATORS_AND_SENSORS))
def test_operator_and_sensor_parameters_match_their_tables(name: str) -> None:
    # The connection's parameters come from the base classes and are documented once.
    shared = set(_parameters(VertexRayBaseOperator)) | ({"mode"} if name.endswith("Sensor") else set())
    if (
        issubclass(OPERATORS_AND_SENSORS[name], VertexRaySubmitJobOperator)
        and OPERATORS_AND_SENSORS[name] is not VertexRaySubmitJobOperator
    ):
        shared |= set(_parameters(VertexRaySubmitJobOperator))
    own = {key: default for key, default in _parameters(OPERATORS_AND_SENSORS[name]).items() if key not in shared}
    (table,) = (table for table in _tables(_section(name)) if table[0][0] == "parameter")
    assert {row[0]: row[1] for row in table[1:]} == own
    for row in table[1:]:
        assert ("(templated)" in row[2]) == (row[0] in OPERATORS_AND_SENSORS[name].template_fields), row  # type: ignore[attr-defined]


def test_decorator_parameters_match_their_table() -> None:
    (table,) = (table for table in _tables(PAGES["functions.md"]) if table[0][0] == "parameter")
    of_airflow = {"python_callable", "op_args", "op_kwargs"}
    own = set(_parameters(_VertexRayDecoratedOperator)) - set(
        _parameters(OPERATORS_AND_SENSORS["VertexRaySubmitJobOperator"])
    )
    assert {row[0] for row in table[1:]} == own - of_airflow
    assert {row[0] for row in table[1:] if "(templated)" in row[2]} <= set(_VertexRayDecoratedOperator.template_fields)


def _parameters(task: type) -> dict[str, str]:
    """Return the keyword parameters of the package's own classes in the hierarchy, with the repr of their defaults."""
    found: dict[str, str] = {}
    for base in reversed(task.__mro__):
        if base.__module__.startswith("airflow_provider_vertex_ray") and "__init__" in vars(base):
            for key, parameter in inspect.signature(vars(base)["__init__"]).parameters.items():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    empty = parameter.default is parameter.empty
                    found[key] = "required" if empty else repr(parameter.default)
    return found


def test_connection_parameters_match_their_table() -> None:
    (table,) = (table for table in _tables(_section("Connection")) if table[0][0] == "parameter")
    assert {row[0]: row[1] for row in table[1:]} == _parameters(VertexRayBaseOperator)
    assert set(_parameters(VertexRayBaseSensor)) == {*_parameters(VertexRayBaseOperator), "deferrable"}
    for task in OPERATORS_AND_SENSORS.values():
        assert set(_parameters(VertexRayBaseOperator)) <= set(task.template_fields)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name", ["VertexRayClusterHook", "VertexRayJobHook", "VertexRayMonitoringHook", "VertexRayPreflightHook"]
)
def test_hook_methods_are_documented(name: str) -> None:
    hooks = _public_classes(("hooks",))
    for kind, more in ((name, set[str]()), (name.replace("Hook", "AsyncHook"), {"tail_job_logs", "jobs", "log_pages"})):
        own = {key for key, value in vars(hooks[kind]).items() if inspect.isfunction(value) and key[0] != "_"}
        for method in own - more:
            assert f"`{method}`" in DOCS_TEXT, method
    sentence = re.search(rf"`{name}` has (.*?);", DOCS_TEXT, re.DOTALL)
    assert sentence
    for method in re.findall(r"`(\w+)`", sentence[1]):
        assert hasattr(hooks[name], method)


@pytest.mark.parametrize("code", _code_blocks("python"))
def test_python_blocks_compile_and_run(code: str) -> None:
    compiled = compile(code, "<docs>", "exec")
    # Blocks that import airflow.sdk need Airflow 3.
    if "airflow_provider_vertex_ray" in code and "from airflow.sdk" not in code:
        exec(compiled, {"__name__": "docs"})


def _links(text: str) -> list[str]:
    """Return the targets of all links and images outside code."""
    return LINK.findall(re.sub(r"`[^`\n]*`", "`code`", FENCE.sub("", text)))


@pytest.mark.parametrize(
    "name",
    [
        *(f"docs/{name}" for name in sorted(PAGES) if name != "README.md"),
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
    ],
)
def test_relative_links_resolve(name: str) -> None:
    page = REPOSITORY / name
    for target in _links(page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in _slugs(file.read_text()), target


@pytest.mark.parametrize("name", INDEX_PAGES)
def test_index_pages_have_absolute_links_only(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    assert [target for target in _links(text) if not target.startswith("https://")] == []
    for image in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text):
        assert image.startswith(RAW_FILES) or not image.startswith(GITHUB), f"{image} is a page, not an image"


@pytest.mark.parametrize("name", INDEX_PAGES)
def test_links_of_index_pages_into_the_repository_resolve(name: str) -> None:
    kinds = {f"{GITHUB}blob/main/": Path.is_file, f"{GITHUB}tree/main/": Path.is_dir, RAW_FILES: Path.is_file}
    for target in _links((REPOSITORY / name).read_text()):
        for prefix, exists in kinds.items():
            if target.startswith(prefix):
                path, _, anchor = target.removeprefix(prefix).partition("#")
                assert exists(REPOSITORY / path), target
                assert not anchor or anchor in _slugs((REPOSITORY / path).read_text()), target


def test_documented_files_and_modules_exist() -> None:
    named = {path for path in re.findall(r"`([\w./-]+\.(?:py|txt))`", ALL_TEXT) if "*" not in path}
    assert {path for path in named if not (REPOSITORY / path).is_file() and not (PACKAGE / path).is_file()} == set()
    for module in re.findall(r"python -m ([\w.]+)", ALL_TEXT):
        import_module(module)


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", ALL_TEXT)) | set(re.findall(r"^make ([a-z]+)", ALL_TEXT, re.MULTILINE))
    assert {"demo", "test", "lint", "bench", "install"} <= named <= targets


def _commands() -> dict[str, argparse.ArgumentParser]:
    parser = cli._parser()
    (choices,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(choices)


def test_documented_command_line_options_exist() -> None:
    parsers = (cli._parser(), *_commands().values())
    known = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    known |= set(_options(preflight_command)) | set(_options(migrate_command)) | set(_options(compat))
    # Options inside Python blocks belong to the reader's own scripts.
    text = FENCE.sub(lambda block: "" if block[1] == "python" else block[0], ALL_TEXT)
    # Options of gcloud are not ours.
    text = re.sub(r"gcloud [^`\n]*", "", text)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    assert {"--project", "--state-dir", "--json"} <= named
    assert named <= known


def _options(command: Any) -> list[str]:
    return [option for action in command._parser()._actions for option in action.option_strings]


def test_migrate_options_match_their_table() -> None:
    (options,) = (table for table in _tables(PAGES["migration.md"]) if table[0][0] == "option")
    assert {row[0] for row in options[1:]} == set(_options(migrate_command)) - {"-h", "--help"}


def test_preflight_options_and_checks_match_their_tables() -> None:
    page = PAGES["preflight.md"]
    (options,) = (table for table in _tables(page) if table[0][0] == "option")
    documented = {option.strip("` ") for row in options[1:] for option in row[0].split(",")}
    assert documented == set(_options(preflight_command)) - {"-h", "--help"}
    (checks,) = (table for table in _tables(page) if table[0][0] == "check")
    assert tuple(row[0] for row in checks[1:]) == CHECKS
    (statuses,) = (table for table in _tables(page) if table[0][0] == "status")
    assert [row[0] for row in statuses[1:]] == [status.value for status in Status]
    looks = {permission for row in checks[1:] for permission in re.findall(r"[a-z]+\.[A-Za-z]+\.[A-Za-z]+", row[4])}
    assert looks <= set(requirements.ROLES)
    assert set(re.findall(r"`(roles/[\w.]+)`", page)) <= set(requirements.ROLES.values())


def test_preflight_sample_output_is_current(fake_emulator: EmulatorProcess) -> None:
    spec, script = (json.loads(match[2]) for match in FENCE.finditer(PAGES["preflight.md"]) if match[1] == "json")
    (sample,) = (match[2] for match in FENCE.finditer(PAGES["preflight.md"]) if match[1] == "text")
    fake_emulator.admin("PUT", "project", script)
    table = VertexRayPreflightHook(location="us-central1").preflight(spec).table()
    # The versions check depends on the date and on this process.
    assert [line for line in table if " versions " not in line] == [
        line for line in sample.splitlines() if " versions " not in line
    ]


def test_emulator_commands_are_documented() -> None:
    named = set(re.findall(r"vertex-ray-emulator ([a-z]+)", ALL_TEXT))
    assert {"start", "status", "env", "stop"} == set(_commands()) <= named
    assert f"exit code is {cli.NOT_RUNNING}" in PAGES["emulator.md"]


def test_emulator_start_options_match_their_table() -> None:
    (table,) = (table for table in _tables(PAGES["emulator.md"]) if table[0][0] == "option")
    documented = {row[0]: row[1] for row in table[1:]}
    actions = [action for action in _commands()["start"]._actions if action.dest not in ("help", "state_dir")]
    assert documented == {action.option_strings[0]: str(action.default) for action in actions}


def test_fault_fields_match_their_table() -> None:
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
        # The action "outcome" is implied by the scopes that have outcomes.
        assert set(get_args(kind)) - {"outcome"} <= set(re.findall(r"\w+", documented[name][1])), name
    for part in admin.PARTS:
        assert f'"{part}"' in PAGES["emulator.md"] or f"`{part}`" in PAGES["emulator.md"]


def test_documented_emulator_requests_are_served(fake_emulator: EmulatorProcess) -> None:
    requests = re.findall(r"^\| `(GET|POST) (/emulator/[\w/]+)`.*$", PAGES["emulator.md"], re.MULTILINE)
    rows = dict.fromkeys(requests)
    assert len(rows) >= 8
    deletable = [path for verb, path in rows if re.search(rf"`{verb} {path}`.*`DELETE`", PAGES["emulator.md"])]
    for verb, path in [*rows, *(("DELETE", path) for path in deletable)]:
        status, answer = fake_emulator.request(verb, path, {} if verb == "POST" else None)
        # A request without its arguments may be rejected, but its path must exist.
        assert status in (200, 400, 404), (verb, path, answer)
        assert "Method not found" not in str(answer), path
    assert "Method not found" in str(fake_emulator.request("GET", "/emulator/nothing")[1])


def test_fault_example_arms_its_faults(fake_emulator: EmulatorProcess) -> None:
    (code,) = (match[2] for match in FENCE.finditer(PAGES["emulator.md"]) if "def rehearse" in match[2])
    names: dict[str, Any] = {}
    exec(code, names)
    names["rehearse"](fake_emulator.host)
    assert len(fake_emulator.admin("GET", "faults")["faults"]) == 4


def test_page_options_match_their_tables() -> None:
    tables = {table[0][0]: table for table in _tables(PAGES["page.md"])}
    options = get_provider_info()["config"]["vertex_ray"]["options"]
    assert {row[0] for row in tables["option"][1:]} == {name for name in options if name.startswith("page_")}
    settings = {table[0][0]: table for table in _tables(PAGES["clusters.md"])}["setting"]
    assert {row[0] for row in settings[1:]} == {name for name in options if not name.startswith("page_")}
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


def test_figures_match_the_code() -> None:
    lost = inspect.signature(VertexRayJobTrigger).parameters["lost_timeout"].default
    expected = {
        "preflight.md": [
            f"for {preflight_run.LONGEST:.0f} seconds at most",
            f"tried up to {google_call.ATTEMPTS} times",
            f"`warn` {ray_versions.NOTICE_DAYS} days before",
            f"last {quotas.WINDOW / 3600:.0f} hours",
        ],
        "jobs.md": [
            f"up to {packages.MAX_PACKAGE_BYTES >> 20} MiB",
            f"up to {packages.SMALL_PACKAGE_BYTES >> 20} MiB",
            f"Above {packages.SAID_FROM >> 20} MiB",
            f"after {log_follower.LONGEST_LINE} characters",
            f"up to {log_follower.KEPT_LINES} of up to {log_follower.LONGEST_KEPT} characters",
            f"for {lost:.0f} seconds",
            f"makes {3600 / requests_per_job.POLL_INTERVAL:.0f} requests an hour",
        ],
        "functions.md": [
            f"on a line of up to {MAX_RESULT_BYTES >> 10} KiB",
            f"more than {values.DEEPEST} levels",
            *(f"`{name}`" for name in PLAIN_CONTEXT),
        ],
        "monitoring.md": [
            f"fit into {monitoring_logs.RETURNED_BYTES >> 10} KiB",
            f"up to {monitoring_logs.MOST_SHOWN} |",
            f"has\n{logs.PAGE_SIZE} entries",
            f"the same {log_follower.KEPT_LINES} lines",
            f"{summary.MOST_POINTS} in all",
            f"at most {summary.MOST_SERIES} series of",
            f"such that there are {monitoring.POINTS}",
            f"returns {monitoring.MOST_POINTS} at most",
            f"{condition.STEPS} of them or one every {condition.SHORTEST_STEP:.0f} to "
            f"{condition.LONGEST_STEP:.0f} seconds",
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
    missing = [phrase for page, phrases in expected.items() for phrase in phrases if phrase not in PAGES[page]]
    assert missing == []


def test_named_metrics_match_their_table() -> None:
    (table,) = (table for table in _tables(PAGES["monitoring.md"]) if table[0][:2] == ["name", "what"])
    assert {row[0]: row[2] for row in table[1:]} == {name: query("etl") for name, query in METRICS.items()}


def test_requests_benchmark_uses_the_default_poll_interval() -> None:
    assert _parameters(OPERATORS_AND_SENSORS["VertexRaySubmitJobOperator"])["poll_interval"] == repr(
        requests_per_job.POLL_INTERVAL
    )


def test_tested_versions_match_the_constraints() -> None:
    (table,) = (table for table in _tables(PAGES["development.md"]) if table[0] == ["what", "all tests run with"])
    tested = {row[0]: row[1] for row in table[1:]}
    for line in ("3.3.2", "2.11"):
        pins = dict(
            re.findall(r"^([\w.-]+)==(\S+)", (REPOSITORY / f"constraints/airflow-{line}.txt").read_text(), re.M)
        )
        assert pins["apache-airflow"] in tested["Airflow"].split(" and ")
        assert pins["apache-airflow-providers-google"] == tested["Google provider"]
        assert pins["google-cloud-aiplatform"] == tested["google-cloud-aiplatform"]
        assert pins["ray"] == tested["Ray"]


def test_product_renaming_is_mentioned_once() -> None:
    assert DOCS_TEXT.count("Gemini Enterprise Agent Platform") == 1
    assert len(re.findall(r"Managed\s+Service\s+for\s+Apache\s+Airflow", DOCS_TEXT)) == 1


def test_docs_state_that_the_service_was_never_used() -> None:
    assert re.search(r"ever\s+run against the real service\*\*", PAGES["index.md"])
    assert re.search(r"never\s+with\s+the\s+service\s+itself", PAGES["emulator.md"])
