"""What ``make bench`` does with its benchmarks, and their arithmetic against cases that were worked out by hand."""

from __future__ import annotations

import importlib
import json
import re
import sys
import urllib.request
from pathlib import Path

import pytest
from emulator_support.process import EmulatorProcess

import benchmarks
from airflow_provider_vertex_ray.price_table import NodeKind
from benchmarks.amortisation import MeasuredJob, amortised
from benchmarks.catalog import BENCHMARKS, Benchmark, chosen
from benchmarks.counting_proxy import counting_proxy
from benchmarks.one import MARK
from benchmarks.plot import draw_ratios
from benchmarks.report import Figure
from benchmarks.results import Results, machine
from benchmarks.runner import run_all
from devtools.process_group import alive

HALF_AN_HOUR = 1800


def test_amortised_counts_billed_time_and_waiting_of_both_ways() -> None:
    jobs = [MeasuredJob(run_seconds=60, start_seconds=600, billed_start_seconds=30)] * 20
    nodes = {NodeKind("n1-standard-16"): 1, NodeKind("n1-standard-8"): 2}
    found = amortised(jobs, nodes, shared_seconds=1800, shared_start_seconds=600)
    assert found["shared"] == {"node_hours": 1.5, "waiting_seconds": 600, "overhead": 1.5}
    assert found["ephemeral"] == {"node_hours": 1.5, "waiting_seconds": 12_000, "overhead": 1.5}


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "other", "goal", "more_is_better", "verdict"),
    [
        (1.0, 2.0, None, False, ""),
        (2.0, 1.0, None, False, "behind"),
        (1.0, 2.0, 0.5, False, "reached"),
        (1.1, 2.0, 0.5, False, "MISSED"),
        (3.0, 2.0, 1.0, False, "MISSED, behind"),
        (3.0, 2.0, 2.0, False, "reached, behind"),
        (3.0, 2.0, 1.0, True, "reached"),
        (1.0, 2.0, 1.0, True, "MISSED, behind"),
        (1.0, 2.0, None, True, "behind"),
        (0.0, 0.0, 1.0, False, "reached"),
        (1.0, 0.0, 1.0, False, "MISSED, behind"),
    ],
)
def test_verdict_names_a_missed_goal_and_a_better_peer(
    value: float, other: float, goal: float | None, more_is_better: bool, verdict: str
) -> None:
    assert Figure("x", value, "s", "a peer", other, goal, more_is_better).verdict == verdict


def test_absolute_goal_is_nobody_to_be_behind() -> None:
    assert Figure("x", 2.0, "s", "goal", 1.0, 1.0).verdict == "MISSED"


# --- the command ------------------------------------------------------------------------------------------------------


def test_catalog_has_every_benchmark_and_fits_into_half_an_hour() -> None:
    folder = Path(benchmarks.__file__).parent
    with_figures = {file.stem for file in folder.glob("*.py") if re.search(r"^def run\(", file.read_text(), re.M)}
    assert {each.name for each in BENCHMARKS} == with_figures
    assert all(callable(importlib.import_module(f"benchmarks.{each.name}").run) for each in BENCHMARKS)
    assert sum(each.seconds for each in BENCHMARKS) < HALF_AN_HOUR


def test_benchmarks_are_chosen_by_name() -> None:
    assert chosen([]) == list(BENCHMARKS)
    assert [each.name for each in chosen(["leases", "imports"])] == ["imports", "leases"]
    with pytest.raises(ValueError, match=r"There is no benchmark import, lease\. Use: imports, "):
        chosen(["import", "lease"])


def figure(what: str, value: float = 1.0) -> str:
    return MARK + json.dumps(Figure(what, value, "s", "goal", 1.0, 1.0).to_dict())


def program(*lines: str, then: str = "") -> list[str]:
    return [sys.executable, "-c", "\n".join([*(f"print({line!r}, flush=True)" for line in lines), then])]


def run(tmp_path: Path, *commands: list[str], seconds: int = 10) -> tuple[int, Results, list[str]]:
    results, said = Results(tmp_path / "page.md", machine()), list[str]()
    given = {f"b{number}": command for number, command in enumerate(commands)}
    made = [Benchmark(name, f"Benchmark {name}", seconds) for name in given]
    return run_all(made, results, said.append, lambda each: given[each.name]), results, said


def test_failed_benchmark_stops_no_other_and_fails_the_command(tmp_path: Path) -> None:
    code, results, said = run(
        tmp_path,
        program(figure("first"), "a note", then="raise SystemExit(3)"),
        program(figure("second")),
        program("only a note"),
    )
    assert code == 1
    assert [each.what for each in results.figures] == ["first", "second"]
    assert [each.failure for each in results.outcomes] == ["ended with exit code 3.", None, "measured nothing."]
    assert "    a note" in said
    page = (tmp_path / "page.md").read_text()
    assert page.count("**Failed**") == 2
    assert "| first | 1.000 s |" in page


def test_good_benchmarks_succeed_and_a_missed_goal_fails(tmp_path: Path) -> None:
    assert run(tmp_path, program(figure("good")))[0] == 0
    code, _, said = run(tmp_path, program(figure("slow", 2.0)))
    assert code == 1
    assert any(line.startswith("slow") and line.endswith("MISSED") for line in said)
    assert "Goals that are missed:\n\n- slow: 2.000 s" in (tmp_path / "page.md").read_text()


def test_figures_are_kept_as_soon_as_they_are_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    results, seen = Results(page, machine()), dict[str, str]()

    def say(text: str) -> None:
        if text.startswith(("one", "two")):
            seen[text[:3]] = page.read_text()

    run_all([Benchmark("b", "B", 10)], results, say, lambda _: program(figure("one"), figure("two")))
    # What a run that is cut just then leaves.
    assert "| one |" in seen["one"]
    assert "| two |" not in seen["one"]
    assert "| two |" in seen["two"]
    assert "This run is not complete" in seen["two"]


def test_endless_benchmark_is_ended_with_what_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    endless = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(child)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    # A busy machine needs longer than the shortest limit to start both.
    for limit in (6, 24, 90):
        seconds = (limit - 60) // 3
        assert Benchmark("x", "X", seconds).limit == limit
        code, results, _ = run(tmp_path, program(figure("kept"), then=endless), seconds=seconds)
        if child.exists() and child.read_text():
            break
    assert code == 1
    assert [each.what for each in results.figures] == ["kept"]
    assert results.outcomes[0].failure == f"did not end within {limit} s."
    assert not alive(int(child.read_text()))


def test_plot_leaves_out_what_has_no_ratio(tmp_path: Path) -> None:
    file = tmp_path / "ratios.svg"
    draw_ratios([Figure("waits", 1.0, "s", "a peer", 2.0), Figure("zero", 1.0, "s", "nothing", 0.0)], file)
    text = file.read_text()
    assert "waits / a peer" in text
    assert "zero" not in text


# --- the meters -------------------------------------------------------------------------------------------------------


def test_counting_proxy_counts_both_directions(fake_emulator: EmulatorProcess) -> None:
    with counting_proxy(fake_emulator.host) as proxy:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{proxy.host}/emulator/clusters", timeout=240) as answer:
            body = answer.read()
            headers = len(str(answer.headers))
        assert json.loads(body)["clusters"] == []
        assert proxy.received >= len(body) + headers
        assert proxy.received <= len(body) + headers + 200
        assert 50 < proxy.sent < 500
