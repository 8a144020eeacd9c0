"""The tables, options and figures of the documentation are the code's."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
from configparser import ConfigParser
from typing import Any, get_args

import pytest
from emulator_support.process import EmulatorProcess
from vertex_ray_emulator import admin, cli, faults

from airflow_provider_vertex_ray import get_provider_info
from airflow_provider_vertex_ray.core.http import google_call, transport
from airflow_provider_vertex_ray.core.job import batch, batch_results, log_follower, packages
from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES
from airflow_provider_vertex_ray.core.monitoring import condition, logs, summary
from airflow_provider_vertex_ray.core.monitoring.log_query import SEVERITIES
from airflow_provider_vertex_ray.core.monitoring.metric_query import METRICS
from airflow_provider_vertex_ray.core.preflight import quotas, ray_versions, requirements
from airflow_provider_vertex_ray.core.preflight import run as preflight_run
from airflow_provider_vertex_ray.core.preflight.report import CHECKS, Status
from airflow_provider_vertex_ray.decorators.job import PLAIN_CONTEXT, _VertexRayDecoratedOperator
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
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from benchmarks import imports, requests_per_job
from devtools import compat
from devtools.constraints import SETS
from tests.support.docs import (
    ALL_TEXT,
    DOCS_TEXT,
    FENCE,
    OPERATORS_AND_SENSORS,
    PAGES,
    REPOSITORY,
    parameters_of,
    section,
    tables_of,
)
from tests.system.bigquery import cases as bigquery_kills
from tests.system.matrix import cases as matrix


@pytest.mark.parametrize("name", sorted(OPERATORS_AND_SENSORS))
def test_operator_and_sensor_parameters_match_their_tables(name: str) -> None:
    # The connection's parameters come from the base classes and are documented once.
    shared = set(parameters_of(VertexRayBaseOperator)) | ({"mode"} if name.endswith("Sensor") else set())
    if (
        issubclass(OPERATORS_AND_SENSORS[name], VertexRaySubmitJobOperator)
        and OPERATORS_AND_SENSORS[name] is not VertexRaySubmitJobOperator
    ):
        shared |= set(parameters_of(VertexRaySubmitJobOperator))
    own = {key: default for key, default in parameters_of(OPERATORS_AND_SENSORS[name]).items() if key not in shared}
    (table,) = (table for table in tables_of(section(name)) if table[0][0] == "parameter")
    assert {row[0]: row[1] for row in table[1:]} == own
    for row in table[1:]:
        assert ("(templated)" in row[2]) == (row[0] in OPERATORS_AND_SENSORS[name].template_fields), row  # type: ignore[attr-defined]


def test_decorator_parameters_match_their_table() -> None:
    (table,) = (table for table in tables_of(PAGES["functions.md"]) if table[0][0] == "parameter")
    of_airflow = {"python_callable", "op_args", "op_kwargs"}
    own = set(parameters_of(_VertexRayDecoratedOperator)) - set(
        parameters_of(OPERATORS_AND_SENSORS["VertexRaySubmitJobOperator"])
    )
    assert {row[0] for row in table[1:]} == own - of_airflow
    assert {row[0] for row in table[1:] if "(templated)" in row[2]} <= set(_VertexRayDecoratedOperator.template_fields)


def test_roles_of_every_operator_and_sensor_are_documented() -> None:
    (table,) = (table for table in tables_of(section("Permissions")) if table[0][-1] == "roles")
    named = {name for row in table[1:] for name in re.findall(r"VertexRay\w+", row[0])}
    assert set(OPERATORS_AND_SENSORS) <= named
    assert [row for row in table[1:] if "roles/" not in row[1]] == []


def test_connection_parameters_match_their_table() -> None:
    (table,) = (table for table in tables_of(section("Connection")) if table[0][0] == "parameter")
    assert {row[0]: row[1] for row in table[1:]} == parameters_of(VertexRayBaseOperator)
    assert set(parameters_of(VertexRayBaseSensor)) == {
        *parameters_of(VertexRayBaseOperator),
        "deferrable",
        "end_from_trigger",
    }
    for task in OPERATORS_AND_SENSORS.values():
        assert set(parameters_of(VertexRayBaseOperator)) <= set(task.template_fields)  # type: ignore[attr-defined]


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
    # Options of other commands are not ours.
    text = re.sub(r"(gcloud|docker|airflow connections) [^`\n]*", "", text.replace("\\\n", " "))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    assert {"--project", "--state-dir", "--json"} <= named
    assert named <= known


def _options(command: Any) -> list[str]:
    return [option for action in command._parser()._actions for option in action.option_strings]


def test_migrate_options_match_their_table() -> None:
    (options,) = (table for table in tables_of(PAGES["migration.md"]) if table[0][0] == "option")
    assert {row[0] for row in options[1:]} == set(_options(migrate_command)) - {"-h", "--help"}


def test_preflight_options_and_checks_match_their_tables() -> None:
    page = PAGES["preflight.md"]
    (options,) = (table for table in tables_of(page) if table[0][0] == "option")
    documented = {option.strip("` ") for row in options[1:] for option in row[0].split(",")}
    assert documented == set(_options(preflight_command)) - {"-h", "--help"}
    (checks,) = (table for table in tables_of(page) if table[0][0] == "check")
    assert tuple(row[0] for row in checks[1:]) == CHECKS
    (statuses,) = (table for table in tables_of(page) if table[0][0] == "status")
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
    (table,) = (table for table in tables_of(PAGES["emulator.md"]) if table[0][0] == "option")
    documented = {row[0]: row[1] for row in table[1:]}
    actions = [action for action in _commands()["start"]._actions if action.dest not in ("help", "state_dir")]
    assert documented == {action.option_strings[0]: str(action.default) for action in actions}


def test_fault_fields_match_their_table() -> None:
    (table,) = (table for table in tables_of(PAGES["emulator.md"]) if table[0][0] == "field")
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


def test_page_options_match_their_tables() -> None:
    tables = {table[0][0]: table for table in tables_of(PAGES["page.md"])}
    options = get_provider_info()["config"]["vertex_ray"]["options"]
    assert {row[0] for row in tables["option"][1:]} == {name for name in options if name.startswith("page_")}
    settings = {table[0][0]: table for table in tables_of(PAGES["clusters.md"])}["setting"]
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
            f"is requested {3600 / requests_per_job.POLL_INTERVAL:.0f} times an hour",
            f"up to {batch.MOST_JOBS:,} jobs",
            f"may have {batch.LONGEST_RESULTS >> 10} KiB when compressed",
            f"{batch_results.MOST_RESULT_BYTES >> 20} MiB before that",
            f"may have {batch.LONGEST_PLAN:,} characters",
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
            f"{page_timeline.MOST_BARS} bars and",
            f"read again after {page_reader.FRESH:.0f} s, curves after {page_reader.METRICS_FRESH:.0f} s",
            f"each read ends after {page_reader.DEADLINE:.0f} s",
        ],
        "service-facts.md": [f"bodies of up to {packages.MAX_PACKAGE_BYTES >> 20} MiB"],
        "clusters.md": [
            f"tried up to {transport.RetryPolicy().attempts} times",
            ", ".join(map(str, sorted(transport.TRANSIENT)[:-1])),
        ],
        "benchmarks.md": [
            f"| <= {imports.GOAL_OVER_FLOOR:.2f} |",
            f"| <= {imports.GOAL_OF_PEER:.2f} |",
            f"| <= {requests_per_job.GOAL:.2f} |",
        ],
    }
    missing = [phrase for page, phrases in expected.items() for phrase in phrases if phrase not in PAGES[page]]
    assert missing == []


def test_named_metrics_match_their_table() -> None:
    (table,) = (table for table in tables_of(PAGES["monitoring.md"]) if table[0][:2] == ["name", "what"])
    assert {row[0]: row[2] for row in table[1:]} == {name: query("etl") for name, query in METRICS.items()}


def test_requests_benchmark_uses_the_default_poll_interval() -> None:
    assert parameters_of(OPERATORS_AND_SENSORS["VertexRaySubmitJobOperator"])["poll_interval"] == repr(
        requests_per_job.POLL_INTERVAL
    )


def test_tested_versions_match_the_constraints() -> None:
    (table,) = (table for table in tables_of(PAGES["development.md"]) if table[0] == ["what", "all tests run with"])
    tested = {row[0]: row[1] for row in table[1:]}
    for line in ("3.3.2", "2.11"):
        pins = dict(
            re.findall(r"^([\w.-]+)==(\S+)", (REPOSITORY / f"constraints/airflow-{line}.txt").read_text(), re.M)
        )
        assert pins["apache-airflow"] in tested["Airflow"].split(" and ")
        assert pins["apache-airflow-providers-google"] == tested["Google provider"]
        assert pins["google-cloud-aiplatform"] == tested["google-cloud-aiplatform"]
        assert pins["ray"] == tested["Ray"]


def test_guarantees_name_all_cases_of_the_matrices() -> None:
    tables = list(tables_of(PAGES["guarantees.md"]))
    (jobs,) = (table for table in tables if table[0][-1] == "case")
    assert {row[-1] for row in jobs[1:]} == {case.scenario for case in matrix.CASES}
    (steps,) = (table for table in tables if table[0][0] == "what dies")
    assert [row[0].partition("`")[0] for row in steps[1:]] == list(bigquery_kills.PARTS)
    assert {tuple(re.findall(r"\w+", row[1])) for row in steps[1:]} == {bigquery_kills.PHASES}


def test_composer_page_names_the_sets_that_are_like_its_images() -> None:
    named = set(re.findall(r"`constraints/(composer-[\d.]+)\.txt`", PAGES["composer.md"]))
    assert named == {each.name for each in SETS if each.composer}


def test_readme_has_figures_of_the_benchmarks_only() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 100
    (figures,) = (table for table in tables_of(PAGES["README.md"]) if table[0][0] == "what")
    measured = [
        row for table in tables_of(DOCS_TEXT) if table[0][:3] == ["what", "ours", "beside"] for row in table[1:]
    ]
    assert {tuple(row) for row in figures[1:]} <= {tuple(row[:4]) for row in measured}
