"""The page's routes. All are served in threads, so that none of them blocks the API server's event loop."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airflow_provider_vertex_ray.errors import storable_text
from airflow_provider_vertex_ray.links.page_address import PREFIX, base_path
from airflow_provider_vertex_ray.plugins.page.access import MayView, Viewer, viewer_of
from airflow_provider_vertex_ray.plugins.page.actions import add_actions, needed_dags
from airflow_provider_vertex_ray.plugins.page.cache import Cached
from airflow_provider_vertex_ray.plugins.page.cluster_view import LogView, cluster_view, log_view
from airflow_provider_vertex_ray.plugins.page.download import DOWNLOAD_SECONDS, Downloads
from airflow_provider_vertex_ray.plugins.page.log import LogTail
from airflow_provider_vertex_ray.plugins.page.owners import Owner
from airflow_provider_vertex_ray.plugins.page.query import (
    JOBS_SHOWN,
    NO_DAG,
    RANGES,
    SORTS,
    USES,
    ClusterQuery,
    ListQuery,
)
from airflow_provider_vertex_ray.plugins.page.reader import ClusterFacts, SourceFacts
from airflow_provider_vertex_ray.plugins.page.row import ClusterRow, cluster_row
from airflow_provider_vertex_ray.plugins.page.service import PageService
from airflow_provider_vertex_ray.plugins.page.sources import Source
from airflow_provider_vertex_ray.plugins.page.text import visible_controls
from airflow_provider_vertex_ray.plugins.page.view import Problem, overview
from airflow_provider_vertex_ray.plugins.page.visible import VisibleJob

FIRST_PAINT = 0.4
"""Seconds for which the first request waits for Google and the dashboards; then the page shows what is known."""

LATER = 2.0
"""Seconds for which a refresh by the page's script waits, also for newer data than is known."""

HERE = Path(__file__).parent.parent
MEDIA = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
"""What the page may load: its own files only, so that a script in a job's name or a log line cannot run."""

CurrentViewer = Annotated[Viewer, Depends(viewer_of)]


def create_page(service: PageService | None = None) -> FastAPI:
    """Return the application, to be mounted at ``/ray-clusters``."""
    # Without the API documentation that FastAPI would serve to everybody.
    app = FastAPI(title="Ray clusters", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[MayView])
    page = Page(service or PageService())
    app.get("/", response_class=HTMLResponse)(page.clusters)
    app.get("/static/{name}")(page.static)
    app.get("/{source}/{cluster_id}", response_class=HTMLResponse)(page.cluster)
    app.get("/{source}/{cluster_id}/log")(page.download)
    app.get("/projects/{project}/locations/{location}/persistentResources/{cluster_id}")(page.find)
    add_actions(app, page.service)
    app.exception_handler(HTTPException)(page.refusal)
    app.middleware("http")(_with_headers)
    return app


class Page:
    """Handlers of the routes, which render the templates."""

    def __init__(self, service: PageService) -> None:
        self.service = service
        self._files = {file.name: file.read_bytes() for file in (HERE / "static").iterdir() if file.suffix in MEDIA}
        version = hashlib.sha256(b"".join(self._files[name] for name in sorted(self._files))).hexdigest()[:12]
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            # Every value, because names of jobs, commands and log lines come from others.
            autoescape=True,
            finalize=_shown,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._downloads = Downloads()
        self._templates.globals |= {"airflow": base_path(), "home": f"{base_path()}{PREFIX}", "version": version}

    def clusters(self, request: Request, viewer: CurrentViewer) -> HTMLResponse:
        """Render the list of clusters."""
        part = "part" in request.query_params
        query = ListQuery.of(request.query_params)
        configured = self.service.sources()
        found = self.service.overview(configured.sources, LATER if part else FIRST_PAINT, patient=part)
        view = overview(found, time.time(), viewer.may_read, self.service.owners.find, query)
        return self._page(
            "clusters",
            part,
            view=view,
            problems=configured.problems,
            reading=view.reading,
            query=query,
            sorts=SORTS,
            uses=USES,
            states=_options(view.states, query.state),
            owners=_options(view.owners, query.owner),
        )

    def cluster(self, request: Request, viewer: CurrentViewer, source: str, cluster_id: str) -> HTMLResponse:
        """Render one cluster."""
        part = "part" in request.query_params
        query = ClusterQuery.of(request.query_params)
        chosen = self._source(source)
        seconds = LATER if part else FIRST_PAINT
        until = time.monotonic() + seconds
        facts, listed = self.service.cluster(chosen, cluster_id, seconds, patient=part)
        if facts is None:
            return self._missing(chosen, cluster_id, listed, part, query, viewer)
        now = time.time()
        row = cluster_row(facts, now, viewer.may_read, self.service.owners.find)
        view = cluster_view(
            row,
            self.service.metrics(chosen, facts.cluster, _left(until)),
            self._log(chosen, facts, row, query, viewer, _left(until), part),
            now=now,
            query=query,
        )
        return self._page(
            "cluster",
            part,
            view=view,
            row=row,
            reading=view.reading,
            may_delete=viewer.may_act(needed_dags(row, facts.lease.value, jobs_too=False)),
            may_stop=lambda each: viewer.may_act([each.owner.dag_id if each.owner else None]),
            query=query,
            came_from=_came_from(query, viewer),
            title=f"{query.job} · {cluster_id}" if view.log else cluster_id,
            more=JOBS_SHOWN,
            ranges=RANGES,
            dags=_options([dag for dag, _ in view.table.dags], query.dag),
        )

    def download(self, request: Request, viewer: CurrentViewer, source: str, cluster_id: str) -> Response:
        """Return a job's log as a file."""
        chosen = self._source(source)
        job = ClusterQuery.of(request.query_params).job
        facts, _ = self.service.cluster(chosen, cluster_id, LATER)
        row = facts and cluster_row(facts, time.time(), viewer.may_read, self.service.owners.find)
        visible = _chosen(row, job) if row else None
        if facts is None or visible is None:
            raise HTTPException(404, "The job does not exist, or the cluster's jobs cannot be read at the moment.")
        if not viewer.may_read_logs(visible.owner.dag_id if visible.owner else None):
            raise HTTPException(403, "You may not read the task logs of the job's DAG.")
        whole = next(each for each in facts.jobs.value or () if each.submission_id == job)
        return self._downloads.answer(
            lambda: self.service.whole_log(chosen, facts.cluster, whole, DOWNLOAD_SECONDS), job
        )

    def find(
        self, request: Request, viewer: CurrentViewer, project: str, location: str, cluster_id: str
    ) -> RedirectResponse:
        """Redirect to the page of a cluster that a task knows by project, region and id."""
        query = ClusterQuery.of(request.query_params)
        sources = self.service.sources().sources
        found = self.service.overview([each for each in sources if each.location == location], FIRST_PAINT)
        if not found:
            raise HTTPException(
                404,
                f"The page shows no clusters of region {location!r}. Add the region to page_locations or page_sources "
                "in the section [vertex_ray] of the API server's configuration.",
            )
        best = max(found, key=lambda each: _resemblance(each, project, cluster_id))
        path = f"{base_path()}{PREFIX}/{quote(best.source.key, safe='')}/{quote(cluster_id, safe='')}"
        return RedirectResponse(f"{path}{query.link()}{'#log' if query.job else ''}", 303)

    def _source(self, key: str) -> Source:
        chosen = self.service.sources().find(key)
        if chosen is None:
            raise HTTPException(404, f"Connection and region {key!r} are not configured.")
        return chosen

    def _log(
        self,
        source: Source,
        facts: ClusterFacts,
        row: ClusterRow,
        query: ClusterQuery,
        viewer: Viewer,
        seconds: float,
        patient: bool,
    ) -> LogView | None:
        visible = _chosen(row, query.job)
        if visible is None:
            return None
        if not viewer.may_read_logs(visible.owner.dag_id if visible.owner else None):
            return log_view(visible, Cached[LogTail](), facts.cluster, time.time(), refused=True)
        # The job with the values of its environment variables, which are masked in the log.
        whole = next(each for each in facts.jobs.value or () if each.submission_id == query.job)
        seen = self.service.log(source, facts.cluster, whole, seconds, patient=patient, find=query.line)
        return log_view(VisibleJob(visible.job, visible.owner), seen, facts.cluster, time.time(), find=query.line)

    def _missing(
        self,
        source: Source,
        cluster_id: str,
        listed: Cached[Any],
        part: bool,
        query: ClusterQuery,
        viewer: Viewer,
    ) -> HTMLResponse:
        reading = listed.reading
        where = f"Connection {source.gcp_conn_id}, region {source.location}"
        problem = Problem.of(where, listed.error) if listed.error else None
        return self._page(
            "missing",
            part,
            # The script refreshes a page that exists, even if its cluster has just been deleted.
            200 if reading or problem or part else 404,
            cluster_id=cluster_id,
            source=source,
            reading=reading,
            problem=problem,
            query=query,
            came_from=_came_from(query, viewer),
            title=cluster_id,
        )

    def static(self, name: str) -> Response:
        """Serve a static file; its address changes with its content."""
        if name not in self._files:
            raise HTTPException(404, f"File {name!r} does not exist.")
        media = MEDIA[Path(name).suffix]
        return Response(self._files[name], media_type=media, headers={"Cache-Control": "private, max-age=86400"})

    def refusal(self, request: Request, error: HTTPException) -> Response:
        """Render 401, 403 and 404: as a page for browsers, as JSON for programs; redirect to the login on 401."""
        wants_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if not wants_page or "part" in request.query_params:
            return _json(error)
        if error.status_code == 401:
            here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"{base_path()}/api/v2/auth/login?{urlencode({'next': here})}", 303)
        answer = self._page("refused", False, error.status_code, message=str(error.detail), reading=False)
        answer.status_code = error.status_code
        return answer

    def _page(self, name: str, part: bool, status: int = 200, title: str = "", **values: Any) -> HTMLResponse:
        template = "part.html" if part else "page.html"
        whole = " · ".join(filter(None, (title, "Ray clusters")))
        text = self._templates.get_template(template).render(content=f"{name}.html", title=whole, **values)
        # What a job prints may not be encodable.
        return HTMLResponse(storable_text(text), status)


def _shown(value: Any) -> Any:
    """Return a value as it is shown; markup, such as an attribute that the script reads, stays as it is."""
    return visible_controls(value) if type(value) is str else value


def _left(until: float) -> float:
    """Return the seconds left for all reads, and at least a minimum, so that cached data is shown."""
    return max(0.1, until - time.monotonic())


def _chosen(row: ClusterRow, job: str) -> VisibleJob | None:
    """Return the job whose log is asked for, unless it is hidden from the user."""
    return next((each for each in row.jobs if job and not each.hidden and each.job.submission_id == job), None)


def _options(values: Sequence[str], chosen: str) -> list[tuple[str, str]]:
    """Return values and texts to choose from, with the chosen one, even if nothing has it any longer."""
    found = [*values, chosen] if chosen and chosen not in values else [*values]
    return [(value, "no task" if value == NO_DAG else value) for value in found]


def _came_from(query: ClusterQuery, viewer: Viewer) -> Owner | None:
    """Return the task instance to link back to, unless it is hidden from the user."""
    owner = query.came_from
    return owner if owner is not None and viewer.may_read(owner.dag_id) else None


def _resemblance(facts: SourceFacts, project: str, cluster_id: str) -> tuple[bool, bool]:
    """Return how well a source fits a cluster; a project may be named by its id or its number."""
    there = any(each.cluster_id == cluster_id for each in facts.listed.value or ())
    named = facts.source.project_id == project or any(each.project == project for each in facts.listed.value or ())
    return named, there


def _json(error: HTTPException) -> Response:
    from fastapi.responses import JSONResponse

    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)


async def _with_headers(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response
