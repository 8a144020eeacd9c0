"""The page in a real Chromium, before a real API server of Airflow 3, with 60 clusters and 500 jobs."""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from airflow import __version__ as airflow_version
from emulator_support.process import PATIENCE, until

from airflow_provider_vertex_ray.links.page import VertexRayPageLink
from devtools.axe import violations
from devtools.browser import launched
from devtools.page_world import HOSTILE, LOCATION, RUN, USERS, PageWorld

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FrameLocator
    from playwright.sync_api import Page as Tab

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(airflow_version.startswith("2."), reason="there is no page on Airflow 2"),
]

JOBS = 500
CROWD = 57
LOADS = 5
ETL = f"google_cloud_default.{LOCATION}/etl-g7"
FIRST_PAINT = 1.0
FIRST_PAINT_HANGING = 2.0


@pytest.fixture(scope="module")
def world() -> Iterator[PageWorld]:
    with tempfile.TemporaryDirectory(prefix="vrp-") as folder, PageWorld(Path(folder)) as found:
        found.fill(JOBS, crowd=CROWD)
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@contextmanager
def tab_of(
    browser: Browser, world: PageWorld, user: str | None = "ada", width: int = 1280, **more: Any
) -> Iterator[Tab]:
    """A tab of a user; what goes wrong in it, in the console or on the wire, fails the test."""
    # Without a graphics card, what moves while the page reads costs a processor.
    context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce", **more)
    context.set_default_timeout(PATIENCE * 1000)
    if user is not None:
        home = world.url.removesuffix("/ray-clusters/")
        context.add_cookies([{"name": "_token", "value": world.token(user), "url": home, "httpOnly": True}])
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("requestfailed", lambda request: wrong.append(f"{request.url}: {request.failure}"))
    tab.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    try:
        yield tab
        # A reload, or the end of the test, may cut a refresh off.
        assert [each for each in wrong if "ERR_ABORTED" not in each] == []
    finally:
        context.close()


FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def _settled(page: Tab | FrameLocator) -> None:
    """Wait for a page's script, for what it reads, and for the focus that its fragment gives with the first frame."""
    # The script ends with the page's age.
    page.locator("#fresh:not(:empty)").wait_for()
    page.locator("#live[data-reading='0']").wait_for()
    page.locator("#live").evaluate(FRAMES)


def _at(tab: Tab) -> str:
    """What has the focus, for a message."""
    return str(tab.evaluate("document.activeElement.outerHTML.slice(0, 400)"))


def _press(tab: Tab, key: str, wanted: str, most: int = 40) -> None:
    """Press a key until what is wanted has the focus."""
    for _ in range(most):
        tab.keyboard.press(key)
        if tab.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
            return
    raise AssertionError(f"{wanted} is more than {most} times {key} away; the focus is at {_at(tab)}")


def _skip(tab: Tab, to: str) -> None:
    """Use the skip link, which is the first stop of a page."""
    # As after a load: the next stop is the first one.
    tab.evaluate("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
    _press(tab, "Tab", f"a.skip[href='#{to}']", 2)
    tab.keyboard.press("Enter")
    _focused(tab, to)


def _focused(tab: Tab, at: str) -> None:
    until(partial(tab.evaluate, "id => document.activeElement.id === id", at), f"#{at} has no focus")


def _warm(browser: Browser, world: PageWorld) -> None:
    """Once: imports, the connection, and all that is read at the first look."""

    def everything_answers() -> bool:
        _settled(tab)
        text = tab.locator("#live").inner_text()
        return not any(each in text for each in ("does not answer", "cannot be read"))

    with tab_of(browser, world) as tab:
        tab.goto(world.url)
        # The first read may meet its deadline on a busy machine; the page repeats it.
        tab.locator("table.clusters a.name").first.wait_for()
        until(everything_answers)


READING = 'data-reading="1"'
PAINTED = "performance.getEntriesByName('first-contentful-paint').map(each => each.startTime)[0]"


def _first_paint(tab: Tab, url: str) -> float:
    """Median of the seconds to the first contentful paint, over several loads."""
    found = []
    for _ in range(LOADS):
        tab.goto(url)
        found.append(until(partial(tab.evaluate, PAINTED), "nothing was painted") / 1000)
    return statistics.median(found)


def _paints_while_it_reads(tab: Tab, url: str) -> None:
    """Load a page while something hangs until it is painted before that is read; one that waits for it never is."""

    # Until what was read before is too old; without the browser's work for each look.
    until(lambda: READING in tab.request.get(url).text(), "the page waits for what hangs")

    def loaded() -> bool:
        answer = tab.goto(url)
        return answer is not None and READING in answer.text()

    until(loaded, "the page waits for what hangs")
    until(partial(tab.evaluate, PAINTED), "nothing was painted")


@contextmanager
def hanging(browser: Browser, world: PageWorld, *faults: dict[str, Any]) -> Iterator[None]:
    """Requests hang in the block; after it, the page has read everything again."""
    _warm(browser, world)
    world.emulate("POST", "faults", [{**fault, "action": "hang", "times": None} for fault in faults])
    try:
        yield
    finally:
        world.emulate("DELETE", "faults")
    _warm(browser, world)


DASHBOARD = {"scope": "dashboard", "resource": "train-g2"}


def test_the_list_says_what_the_emulator_knows(world: PageWorld, browser: Browser) -> None:
    _warm(browser, world)
    with tab_of(browser, world) as tab:
        tab.goto(world.url)
        _settled(tab)
        rows = {row.locator("a.name").inner_text(): row for row in tab.locator("table.clusters tbody tr").all()}
        assert set(rows) == {"etl-g7", "train-g2", "adhoc", *(f"crowd-{place:02}" for place in range(CROWD))}
        running = 0
        for name in ("etl-g7", "train-g2", "adhoc"):
            row = rows[name]
            states = Counter(each["status"] for each in world.jobs(name))
            text = row.inner_text()
            assert f"{states['RUNNING']} running" in text
            assert f"{states['PENDING']} pending" in text
            assert "RUNNING" in text
            running += states["RUNNING"]
        assert running == 9
        etl = rows["etl-g7"].inner_text()
        for said in ("shared as etl, generation 7", "scales 3 to 5", "6 / 16", "$1.75/h", "in use", f"etl_daily/{RUN}"):
            assert said in etl, said
        assert "0 / 2" in rows["train-g2"].inner_text()
        assert "the reaper ignores it" in rows["adhoc"].inner_text()
        figures = dict(
            zip(
                tab.locator(".figures dt").all_inner_texts(),
                tab.locator(".figures dd:not(.remark)").all_inner_texts(),
                strict=True,
            )
        )
        assert figures == {
            "Clusters": "60",
            "Nodes": "122",
            "Jobs running": "9",
            "Idle": "58",
            "Cost per hour": "$82.25",
        }
        # The clusters in use come after all that cost money for nothing.
        assert set(list(rows)[-2:]) == {"etl-g7", "train-g2"}


def test_the_links_lead_to_airflow_and_to_google(world: PageWorld, browser: Browser) -> None:
    with tab_of(browser, world) as tab:
        tab.goto(world.url)
        _settled(tab)
        row = tab.locator("tr", has=tab.get_by_role("link", name="train-g2"))
        hrefs = {link.inner_text(): link.get_attribute("href") or "" for link in row.get_by_role("link").all()}
        run = quote(RUN, safe="")
        assert hrefs["Train.Model"] == "/dags/Train.Model"
        assert hrefs[RUN] == f"/dags/Train.Model/runs/{run}"
        # On the emulator there is nothing at Google's to link to, and the dashboard has another address.
        assert not {"Console", "Logs", "Metrics"} & set(hrefs)
        assert world.emulator is not None
        assert hrefs["Dashboard"].startswith(f"http://{world.emulator.host}/")
        # What they lead to exists in this Airflow.
        assert world.api("GET", f"dags/Train.Model/dagRuns/{run}")["dag_run_id"] == RUN
        row.get_by_role("link", name="train-g2").click()
        tab.wait_for_url("**/train-g2*")
        _settled(tab)
        task = tab.locator("table.list td[data-label='Task'] a").first
        assert task.get_attribute("href") in {
            f"/dags/Train.Model/runs/{run}/tasks/{name}" for name in ("load", "score", "report")
        }


def test_a_clusters_page_has_jobs_timeline_curves_and_log(world: PageWorld, browser: Browser) -> None:
    truth = world.jobs("etl-g7")
    with tab_of(browser, world) as tab:
        tab.goto(world.url + ETL)
        _settled(tab)
        states = Counter(each["status"] for each in truth)
        assert tab.locator("#jobs .filters a").all_inner_texts() == [
            f"all {len(truth)}",
            f"active {states['RUNNING'] + states['PENDING']}",
            f"failed {states['FAILED']}",
        ]
        assert tab.locator("table.list tbody tr").count() == 25
        tab.get_by_role("link", name="Show more").click()
        tab.wait_for_url("**jobs=50*")
        _settled(tab)
        assert tab.locator("table.list tbody tr").count() == 50
        assert tab.locator("svg.lanes rect.job.open").count() == states["RUNNING"]
        assert "400 jobs in" in tab.locator("#lanes-said").inner_text()
        assert tab.locator("figure.plot figcaption").all_inner_texts()[0].startswith("CPU 59 % now")
        assert tab.locator("figure.plot path.curve").first.get_attribute("d")
        tab.get_by_role("link", name="by-hand", exact=True).click()
        tab.wait_for_url("**job=by-hand*")
        _settled(tab)
        assert HOSTILE in tab.locator("pre.log").inner_text()
        assert tab.locator("pre.log img").count() == 0
        assert tab.title() == "by-hand · etl-g7 · Ray clusters"
        tab.locator("#jobs .filters").get_by_role("link", name="failed").click()
        tab.wait_for_url("**show=failed*")
        _settled(tab)
        assert set(tab.locator("table.list td[data-label='Status']").all_inner_texts()) == {"FAILED"}
        assert "hunter2" not in tab.content()


def test_who_is_not_logged_in_is_sent_to_the_login(world: PageWorld, browser: Browser) -> None:
    with tab_of(browser, world, user=None) as tab:
        tab.goto(world.url)
        assert "/auth/login" in tab.url
        assert tab.get_by_text("etl-g7").count() == 0
        for path in ("?part=1", f"{ETL}?part=1", "static/page.css"):
            assert tab.request.get(world.url + path).status == 401
        for act in ("delete", "stop"):
            assert tab.request.post(f"{world.url}{ETL}/{act}", data={}).status == 401


def test_a_viewer_can_not_delete(world: PageWorld, browser: Browser) -> None:
    with tab_of(browser, world, user="vic") as tab:
        tab.goto(world.url + ETL)
        _settled(tab)
        assert tab.locator("table.list tbody tr").count() == 25
        assert tab.locator("button[data-act]").count() == 0
        headers = {"X-Vertex-Ray-Page": "1", "Sec-Fetch-Site": "same-origin"}
        answer = tab.request.post(
            f"{world.url}{ETL}/delete", data={"confirm": "etl-g7", "force": True}, headers=headers
        )
        assert answer.status == 403
        assert world.vertex("GET", "persistentResources/etl-g7")["state"] == "RUNNING"


# All that was said, for a notice is gone after some seconds.
SAID = """addEventListener("DOMContentLoaded", () => {
  window.said = "";
  for (const id of ["notice", "act"]) {
    const element = document.getElementById(id);
    const note = () => { window.said += element.textContent; };
    if (element) new MutationObserver(note).observe(element, {subtree: true, childList: true, characterData: true});
  }
});"""


def _said(tab: Tab, *texts: str) -> None:
    until(lambda: any(text in tab.evaluate("window.said") for text in texts), f"nobody says {texts}")


def test_an_admin_deletes_a_cluster_and_stops_a_job(world: PageWorld, browser: Browser) -> None:
    world.create("spare", {**world.vertex("GET", "persistentResources/adhoc"), "name": ""})
    with tab_of(browser, world) as tab:
        tab.add_init_script(SAID)
        # One in use is not deleted by the name alone.
        tab.goto(world.url + ETL)
        _settled(tab)
        tab.get_by_role("button", name="Delete…").click()
        yes = tab.get_by_role("button", name="Delete cluster")
        assert "The cluster is in use: job" in tab.locator("#act-users").inner_text()
        tab.get_by_label("Type etl-g7 to confirm").fill("etl-g7")
        assert yes.is_disabled()
        tab.get_by_label("Delete it although it is in use").check()
        assert yes.is_enabled()
        tab.get_by_role("button", name="Cancel").click()
        # From here on with the keyboard alone: a job, ...
        _skip(tab, "jobs")
        _press(tab, "Tab", "input[name='q']")
        tab.keyboard.type("by-hand")
        tab.keyboard.press("Enter")
        tab.get_by_text("1 of 400 jobs").wait_for()
        _settled(tab)
        # The jobs that were found are where the next stop is.
        _focused(tab, "jobs")
        _press(tab, "Tab", "table.list a.name")
        _press(tab, "ArrowRight", "button[data-act='stop']")
        tab.keyboard.press("Enter")
        tab.get_by_role("heading", name="Stop job by-hand?").wait_for()
        _press(tab, "Tab", "#act-yes")
        tab.keyboard.press("Enter")
        until(lambda: {each["submission_id"]: each["status"] for each in world.jobs("etl-g7")}["by-hand"] == "STOPPED")
        # The second one where the emulator is as busy.
        _said(tab, "A stop request was sent to job by-hand.", "The request to stop job by-hand is repeated")
        # ... and a cluster that nobody uses, found by its name.
        tab.goto(world.url)
        _settled(tab)
        _press(tab, "Tab", "input[name='q']")
        tab.keyboard.type("spare")
        tab.keyboard.press("Enter")
        tab.get_by_text("1 of 61 clusters").wait_for()
        _settled(tab)
        _skip(tab, "list")
        _press(tab, "Tab", "table.clusters a.name")
        tab.keyboard.press("Enter")
        tab.get_by_role("heading", name="spare").wait_for()
        _settled(tab)
        _press(tab, "Tab", "button[data-act='delete']")
        tab.keyboard.press("Enter")
        assert yes.is_disabled()
        tab.keyboard.type("spare")
        tab.keyboard.press("Enter")
        _said(tab, "Cluster spare is being deleted.")
    until(lambda: "spare" not in str(world.emulate("GET", "clusters")))
    for event, said in (("vertex_ray.delete_cluster", "/spare"), ("vertex_ray.stop_job", "by-hand")):
        (row_of_audit,) = until(lambda event=event: world.api("GET", f"eventLogs?event={event}")["event_logs"])
        assert row_of_audit["owner"] == "ada"
        assert said in row_of_audit["extra"]
        assert "outcome" in row_of_audit["extra"]


# What a user sees of it is a matter of the machine's load.
@pytest.mark.soak
def test_the_first_paint_comes_in_time(world: PageWorld, browser: Browser) -> None:
    _warm(browser, world)
    with tab_of(browser, world) as tab:
        assert _first_paint(tab, world.url) < FIRST_PAINT
        assert _first_paint(tab, world.url + ETL) < FIRST_PAINT
    with hanging(browser, world, DASHBOARD), tab_of(browser, world) as tab:
        assert _first_paint(tab, world.url) < FIRST_PAINT_HANGING
        assert _first_paint(tab, f"{world.url}google_cloud_default.{LOCATION}/train-g2") < FIRST_PAINT_HANGING


def test_the_first_paint_waits_for_nothing(world: PageWorld, browser: Browser) -> None:
    faults = ({"scope": "control_plane"}, {"scope": "dashboard"})
    with hanging(browser, world, *faults), tab_of(browser, world) as tab:
        _paints_while_it_reads(tab, world.url)
        assert tab.locator("table.clusters a.name").count() == 60
        _paints_while_it_reads(tab, world.url + ETL)
        assert tab.locator("table.list tbody tr").count() == 25


def test_a_dashboard_that_hangs_delays_nothing_and_is_said(world: PageWorld, browser: Browser) -> None:
    with hanging(browser, world, DASHBOARD), tab_of(browser, world) as tab:
        _paints_while_it_reads(tab, world.url)
        row, other = (tab.locator("tr", has=tab.get_by_role("link", name=name)) for name in ("train-g2", "etl-g7"))
        row.get_by_text("The dashboard does not answer").wait_for()
        assert "2 running" in row.inner_text()
        # Of a busy cluster, this may be read last.
        row.get_by_text("treated as in use").wait_for()
        # A busy one may not answer for a moment.
        until(lambda: "does not answer" not in other.inner_text())
        _paints_while_it_reads(tab, f"{world.url}google_cloud_default.{LOCATION}/train-g2")
        tab.get_by_text("the dashboard does not answer").first.wait_for()


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 400),
        ("dark", 1280),
        pytest.param("dark", 400, marks=pytest.mark.soak),
        pytest.param("light", 1280, marks=pytest.mark.soak),
    ],
)
def test_it_is_accessible_at_any_width_and_as_dark_as_airflow(
    world: PageWorld, browser: Browser, scheme: str, width: int, tmp_path: Path
) -> None:
    other: Any = "light" if scheme == "dark" else "dark"
    with tab_of(browser, world, width=width, color_scheme=other) as tab:
        # Airflow's own choice wins over the system's.
        tab.add_init_script(f"localStorage.setItem('theme', '{scheme}')")
        for place, path in enumerate(("", "?q=nothing-has-this", f"{ETL}?job=by-hand")):
            tab.goto(world.url + path)
            _settled(tab)
            tab.screenshot(path=tmp_path / f"{place}-{width}-{scheme}.png", full_page=True)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert violations(tab) == []
            background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert background == ("rgb(0, 0, 0)" if scheme == "dark" else "rgb(255, 255, 255)")
            assert tab.evaluate(CONTRAST) == []


# Text whose colour is less than 4.5 to 1 to what is behind it (WCAG AA).
CONTRAST = """() => {
  const parts = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const c = parts(getComputedStyle(node).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const weak = [];
  const texts = document.createTreeWalker(document.getElementById('live'), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || node.closest('svg') || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    if (style.color.startsWith('color(')) continue;
    const [a, b] = [light(parts(style.color)), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) weak.push(node.className + ': ' + texts.currentNode.data.trim());
  }
  return weak;
}"""


def test_a_row_is_one_stop_and_a_timeline_leads_to_jobs(world: PageWorld, browser: Browser) -> None:
    with tab_of(browser, world) as tab:
        tab.goto(f"{world.url}?q=g7")
        _settled(tab)
        _skip(tab, "list")
        _press(tab, "Tab", "table.clusters a.name", 8)
        assert tab.evaluate("document.querySelectorAll('tr[data-rove] [tabindex=\"0\"]').length") == 1
        tab.keyboard.press("End")
        assert "Dashboard" in _at(tab)
        tab.keyboard.press("Tab")
        assert not tab.evaluate("document.activeElement.matches('tr *')")
        tab.goto(f"{world.url}{ETL}")
        _settled(tab)
        # Each job has a bar, or is counted in a column.
        bars = tab.locator("svg.lanes a:has(> rect > title), svg.lanes [data-rove] > rect").count()
        columns = tab.locator("svg.lanes a:has(> title)")
        counted = sum(int((each or "").split()[0]) for each in columns.evaluate_all(LABELS))
        assert bars + counted == len(world.jobs("etl-g7"))
        # One stop for all of them; from a column to its part of the time, and to a job's log.
        _press(tab, "Tab", "svg.lanes a", 60)
        _press(tab, "End", "svg.lanes a", 1)
        if tab.evaluate("document.activeElement.querySelector('title').parentElement.tagName") == "a":
            tab.keyboard.press("Enter")
            tab.wait_for_url("**within=*")
            _settled(tab)
            assert "in" in tab.locator("#lanes-said").inner_text()
        job = tab.locator("svg.lanes a:has(> rect > title)").first
        job.focus()
        tab.keyboard.press("Enter")
        tab.wait_for_url("**job=*#log")
        tab.get_by_role("heading", name="Log of").wait_for()


LABELS = "links => links.map(link => link.getAttribute('aria-label'))"


def test_names_are_copied_and_searches_survive_a_refresh(world: PageWorld, browser: Browser) -> None:
    with tab_of(browser, world, permissions=["clipboard-read", "clipboard-write"]) as tab:
        tab.clock.install()
        tab.goto(world.url)
        _settled(tab)

        def copied() -> bool:
            tab.get_by_role("button", name="Copy the name etl-g7").click()
            return tab.get_by_text("Copied").is_visible()

        # It says so for a moment only.
        until(copied)
        assert tab.evaluate("navigator.clipboard.readText()") == "etl-g7"
        # What is typed, and the focus, are there after a refresh.
        tab.get_by_label("Search").press_sequentially("et")
        with tab.expect_response(lambda answer: "part=1" in answer.url):
            tab.clock.fast_forward(16_000)
        tab.get_by_text("Updated just now").wait_for()
        tab.keyboard.type("l-g7")
        tab.keyboard.press("Enter")
        tab.get_by_text("1 of 6").wait_for()
        _settled(tab)
        tab.get_by_label("Sort by").select_option("cost")
        tab.wait_for_url("**sort=cost*")
        assert tab.locator("th[aria-sort='descending']").inner_text() == "Cost so far"


def test_a_refresh_moves_nothing(world: PageWorld, browser: Browser) -> None:
    with tab_of(browser, world) as tab:
        tab.clock.install()
        tab.goto(world.url + ETL)
        _settled(tab)
        tab.evaluate("""() => { window.shift = 0; new PerformanceObserver(list => {
            for (const each of list.getEntries()) window.shift += each.value;
        }).observe({type: 'layout-shift'}); }""")
        tab.get_by_role("link", name="Ray clusters").focus()
        with tab.expect_response(lambda answer: "part=1" in answer.url):
            tab.clock.fast_forward(16_000)
        tab.get_by_text("Updated just now").wait_for()
        assert tab.evaluate("document.activeElement.textContent") == "Ray clusters"
        assert tab.evaluate("window.shift") < 0.02


def test_it_is_in_airflows_navigation_and_its_links_leave_the_frame(world: PageWorld, browser: Browser) -> None:
    home = world.url.removesuffix("/ray-clusters/")
    with tab_of(browser, world) as tab:
        tab.goto(f"{home}/plugin/ray-clusters")
        frame = tab.frame_locator("iframe[title='Ray clusters']")
        frame.get_by_role("link", name="train-g2").wait_for()
        assert tab.get_by_role("link", name="Ray clusters").count() >= 1
        # Its pages can be linked to and reloaded, for Airflow keeps their address in its own.
        frame.get_by_role("link", name="train-g2").click()
        frame.get_by_role("heading", name="train-g2").wait_for()
        _settled(frame)
        tab.wait_for_url(f"**/plugin/ray-clusters/ray-clusters/google_cloud_default.{LOCATION}/train-g2")
        frame.get_by_role("link", name="Train.Model", exact=True).click()
        tab.wait_for_url(f"{home}/dags/Train.Model")
        tab.goto(f"{home}/plugin/ray-clusters")
        # From a task to the log of its job, and back.
        task = {"from_dag": "etl_daily", "from_run": RUN, "from_task": "load"}
        facts = {"project_id": "demo-project", "location": LOCATION, "cluster_id": "etl-g7", "submission_id": "by-hand"}
        tab.goto(home + VertexRayPageLink().url({**facts, **task}))
        frame.get_by_role("heading", name="Log of by-hand").wait_for()
        _settled(frame)
        assert tab.title() == "by-hand · etl-g7 · Ray clusters"
        frame.get_by_role("link", name="Back to task load of etl_daily").click()
        tab.wait_for_url(f"{home}/dags/etl_daily/runs/*/tasks/load*")
        assert "Ray clusters" not in tab.title()
        tab.goto(f"{home}/plugin/ray-clusters")
        # Without an icon of the page's own, which would have no text and a fixed colour.
        assert tab.locator("nav img:not([alt])").count() == 0
        _settled(frame)
        out = frame.get_by_role("link", name="Dashboard").first
        # Elsewhere in this machine: a test goes to nobody else.
        out.evaluate("(link, home) => { link.href = home + '/ray-clusters/'; }", home)
        with tab.context.expect_page() as opened:
            out.click()
        opened.value.wait_for_url(world.url)
        assert opened.value.evaluate("window.opener") is None
        opened.value.close()


def test_users_have_the_roles_that_the_tests_mean() -> None:
    assert {name: role for name, (role, _) in USERS.items()} == {"ada": "ADMIN", "vic": "VIEWER"}
