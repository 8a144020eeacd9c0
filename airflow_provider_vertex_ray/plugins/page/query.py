"""What an address of the page asks for: search, filters, order, range. Pure.

An address can be typed, cut short, or come from an older version of the page: what is not valid counts as not given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from airflow_provider_vertex_ray.core.cluster.state import ClusterState
from airflow_provider_vertex_ray.links.page import FROM_PREFIX
from airflow_provider_vertex_ray.plugins.page.owners import Owner
from airflow_provider_vertex_ray.plugins.page.reader import MOST_JOBS

LONGEST_TEXT = 300
"""Maximum number of characters of a text in an address; longer ones match nothing that the page knows."""

LONGEST_ID = 4_000
"""Maximum number of characters of a job's id."""

JOBS_SHOWN = 25
"""Number of jobs in the table at first, and added by each "show more"."""

SORTS: Mapping[str, str] = {
    "idle": "Idle money first",
    "name": "Name",
    "state": "State",
    "jobs": "Running jobs, most first",
    "nodes": "Nodes, most first",
    "age": "Age, oldest first",
    "cost": "Cost so far, highest first",
    "hourly": "Cost per hour, highest first",
}
"""Orders of the list of clusters; the first one is the default."""

USES: Mapping[str, str] = {"idle": "idle", "used": "in use", "unknown": "not known"}
STATES = tuple(state.value for state in ClusterState if state is not ClusterState.UNKNOWN)
JOB_SORTS = ("newest", "oldest", "longest", "shortest", "name")
"""Orders of the table of jobs; the first one is the default."""

JOB_FILTERS = ("all", "active", "failed")
RANGES: Mapping[str, float] = {"15m": 900.0, "1h": 3600.0, "6h": 21_600.0, "24h": 86_400.0, "7d": 604_800.0}
"""Periods until now for timeline and table, in seconds."""

NO_DAG = "-"
"""Value of the filters by DAG for what belongs to no DAG."""

_PERIOD = re.compile(r"([0-9]{1,12})-([0-9]{1,12})")
_SPARE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class ListQuery:
    """The query of the list of clusters.

    :param q: search text.
    :param state: a cluster's state; empty for all.
    :param use: one of ``USES``; empty for all.
    :param owner: a DAG, or ``NO_DAG``; empty for all.
    :param sort: one of ``SORTS``.
    """

    q: str = ""
    state: str = ""
    use: str = ""
    owner: str = ""
    sort: str = "idle"

    @classmethod
    def of(cls, given: Mapping[str, str]) -> ListQuery:
        """Return the query in the parameters of an address."""
        return cls(
            q=_text(given, "q").strip(),
            state=_choice(given, "state", STATES),
            use=_choice(given, "use", USES),
            owner=_text(given, "owner"),
            sort=_choice(given, "sort", SORTS) or "idle",
        )

    @property
    def narrowed(self) -> bool:
        """Whether it leaves clusters out."""
        return bool(self.q or self.state or self.use or self.owner)

    def link(self, **change: Any) -> str:
        """Return the query of an address, with changes."""
        return _address(replace(self, **change), ListQuery())


@dataclass(frozen=True)
class ClusterQuery:
    """The query of a cluster's page.

    :param job: submission id of the job whose log is shown.
    :param show: one of ``JOB_FILTERS``.
    :param jobs: number of jobs in the table.
    :param q: search text for the jobs.
    :param dag: DAG of the jobs, or ``NO_DAG``; empty for all.
    :param sort: one of ``JOB_SORTS``.
    :param within: one of ``RANGES``, or two Unix times with a hyphen; empty for the last jobs.
    :param line: search text for the log.
    :param wrap: ``no`` if long lines of the log are not wrapped.
    :param back: query of the list from which the user came.
    :param from_dag: DAG of the task instance from which the user came; likewise the next ones.
    """

    job: str = ""
    show: str = "all"
    jobs: int = JOBS_SHOWN
    q: str = ""
    dag: str = ""
    sort: str = "newest"
    within: str = ""
    line: str = ""
    wrap: str = ""
    back: str = ""
    from_dag: str = ""
    from_run: str = ""
    from_task: str = ""
    from_map: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> ClusterQuery:
        """Return the query in the parameters of an address."""
        came = {name: _text(given, name) for name in ("from_dag", "from_run", "from_task")}
        # All of them or none, because Airflow has no page of a part of them.
        came = came if all(came.values()) else {}
        index = given.get(f"{FROM_PREFIX}map", "")
        return cls(
            # Ray takes any text as an id, so this one is compared as it is.
            job=given.get("job", "")[:LONGEST_ID],
            show=_choice(given, "show", JOB_FILTERS) or "all",
            jobs=_count(given.get("jobs", "")),
            q=_text(given, "q").strip(),
            dag=_text(given, "dag"),
            sort=_choice(given, "sort", JOB_SORTS) or "newest",
            within=_range(given.get("within", "")),
            line=_text(given, "line"),
            wrap=_choice(given, "wrap", ("no",)),
            back=_list(given.get("back", "")),
            **came,
            from_map=index if came and re.fullmatch(r"[0-9]{1,6}", index) else "",
        )

    @property
    def narrowed(self) -> bool:
        """Whether it leaves jobs out."""
        return bool(self.q or self.dag or self.within or self.show != "all")

    @property
    def came_from(self) -> Owner | None:
        """The task instance from which the user came."""
        if not self.from_dag:
            return None
        return Owner(self.from_dag, self.from_run, self.from_task, int(self.from_map or -1))

    def period(self, now: float) -> tuple[float, float] | None:
        """Return start and end of the range as Unix times; None for the last jobs."""
        if self.within in RANGES:
            return now - RANGES[self.within], now
        found = _PERIOD.fullmatch(self.within)
        return (float(found[1]), float(found[2])) if found else None

    def link(self, **change: Any) -> str:
        """Return the query of an address, with changes."""
        return _address(replace(self, **change), ClusterQuery())

    def download(self) -> str:
        """Return the query of the address of the job's log as a file."""
        return ClusterQuery(job=self.job).link()

    def hidden(self, *names: str) -> list[tuple[str, Any]]:
        """Return names and values to repeat in a form that sets the parameters ``names``."""
        found = parse_qsl(self.link()[1:], keep_blank_values=True)
        return [(name, value) for name, value in found if name not in names]


def _text(given: Mapping[str, str], name: str) -> str:
    return _SPARE.sub(" ", given.get(name, ""))[:LONGEST_TEXT]


def _choice(given: Mapping[str, str], name: str, choices: Any) -> str:
    value = given.get(name, "")
    return value if value in choices else ""


def _count(text: str) -> int:
    return max(1, min(int(text), MOST_JOBS)) if re.fullmatch(r"[0-9]{1,6}", text) else JOBS_SHOWN


def _range(text: str) -> str:
    found = _PERIOD.fullmatch(text)
    if found is not None:
        return text if int(found[1]) < int(found[2]) else ""
    return text if text in RANGES else ""


def _list(text: str) -> str:
    """Return the query of the list that a text describes, written anew, so that it can hold nothing else."""
    return ListQuery.of(dict(parse_qsl(text[:1000]))).link()[1:]


def _address(query: Any, plain: Any) -> str:
    """Return what differs from a plain query as the query of an address."""
    kept = {
        each.name: getattr(query, each.name)
        for each in fields(query)
        if getattr(query, each.name) != getattr(plain, each.name)
    }
    # Ray's ids may hold what UTF-8 cannot encode.
    return "?" + urlencode({name: str(value) for name, value in kept.items()}, quote_via=quote, errors="replace")
