"""A job that prints for twenty minutes over bad connections: each line once, in order, and flat memory.

``test_a_sample`` is the same in short, and runs with all tests.
"""

from __future__ import annotations

import shlex

import pytest
from emulator_support.process import EmulatorProcess

from tests.conftest import WITH_WEBSOCKETS, use
from tests.soak.long_log import FAULTY_SHARE, Report, follow
from tests.support.clusters import start

MOST_GROWTH = 2 << 20

PROGRAM = """
import time
begin = time.time()
for number in range({count}):
    time.sleep(max(0.0, begin + number * {seconds} / {count} - time.time()))
    print("line", number)
print('VERTEX_RAY_RESULT {{"lines": {count}}}')
"""


def check(report: Report, count: int, requests: int) -> None:
    assert report.lines.wrong == []
    assert report.lines.expected == count
    assert report.lines.others == 2, "Ray's first line, and the result"
    assert (report.result["status"], report.result["result"]) == ("SUCCEEDED", {"lines": count})
    assert report.memory.growth(report.memory.traced) < MOST_GROWTH
    assert report.requests.total() < requests
    # The weather was bad.
    assert any(call.endswith("/tail 101") for call in report.requests)


async def test_a_sample(websocket_emulator: EmulatorProcess) -> None:
    count, seconds = 3_000, 20.0
    start(websocket_emulator)
    entrypoint = f"count {count} {seconds} && echo 'VERTEX_RAY_RESULT {{\"lines\": {count}}}'"
    report = await follow(websocket_emulator, "shared", entrypoint, seconds=seconds, token_seconds=5)
    check(report, count, 150)


@pytest.mark.soak
@pytest.mark.ray
@pytest.mark.timeout(3600)
async def test_a_hundred_thousand_lines(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count, seconds = 100_000, 1200.0
    with EmulatorProcess(tmp_path_factory.mktemp("l"), WITH_WEBSOCKETS) as emulator:
        use(emulator, monkeypatch)
        start(emulator)
        entrypoint = f"python -c {shlex.quote(PROGRAM.format(count=count, seconds=seconds))}"
        report = await follow(emulator, "shared", entrypoint, seconds=seconds, token_seconds=60)
    with capsys.disabled():
        print(f"\n{report}")
    check(report, count, 800)
    failed = sum(times for call, times in report.requests.items() if call.endswith((" 0", " 429", " 503", " 524")))
    assert failed > report.requests.total() * FAULTY_SHARE / 4
