"""The page's routes. All are served in threads, so that none of them blocks the API server's event loop."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airflow_provider_vertex_ray.errors import storable_text
from airflow_provider_vertex_ray.plugins.page.access import MayView, Viewer, viewer_of
from airflow_provider_vertex_ray.plugins.page.actions import add_actions, needed_dags
from airflow_provider_vertex_ray.plugins.page.address import PREFIX, base_path
from airflow_provider_vertex_ray.plugins.page.cache import Cached
from airflow_provider_vertex_ray.plugins.page.cluster_view import FILTERS, JOBS_SHOWN, LogView, cluster_view, log_view
from airflow_provider_vertex_ray.plugins.page.log import LogTail
from airflow_provider_vertex_ray.plugins.page.reader import METRICS, MOST_JOBS, ClusterFacts
from airflow_provider_vertex_ray.plugins.page.row import ClusterRow, cluster_row
from airflow_provider_vertex_ray.plugins.page.service import PageService
from airflow_provider_vertex_ray.plugins.page.sources import Source
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
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
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
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {"airflow": base_path(), "home": f"{base_path()}{PREFIX}", "version": version}

    def clusters(self, request: Request, viewer: CurrentViewer, part: str = "") -> HTMLResponse:
        """Render the list of clusters."""
        configured = self.service.sources()
        found = self.service.overview(configured.sources, LATER if part else FIRST_PAINT, patient=bool(part))
        view = overview(found, time.time(), viewer.may_read, self.service.owners.find)
        return self._page("clusters", part, view=view, problems=configured.problems, reading=view.reading)

    def cluster(
        self,
        request: Request,
        viewer: CurrentViewer,
        source: str,
        cluster_id: str,
        part: str = "",
        job: str = "",
        show: str = "all",
        jobs: int = JOBS_SHOWN,
    ) -> HTMLResponse:
        """Render one cluster."""
        chosen = self.service.sources().find(source)
        if chosen is None:
            raise HTTPException(404, f"Connection and region {source!r} are not configured.")
        seconds = LATER if part else FIRST_PAINT
        until = time.monotonic() + seconds
        facts, listed = self.service.cluster(chosen, cluster_id, seconds, patient=bool(part))
        if facts is None:
            return self._missing(chosen, cluster_id, listed, part)
        now = time.time()
        row = cluster_row(facts, now, viewer.may_read, self.service.owners.find)
        view = cluster_view(
            row,
            self.service.metrics(chosen, facts.cluster, _left(until)),
            self._log(chosen, facts, row, job, viewer, _left(until), bool(part)),
            now=now,
            chosen=show if show in FILTERS else "all",
            shown=max(1, min(jobs, MOST_JOBS)),
        )
        query = {"job": job, "show": show if show != "all" else "", "jobs": jobs if jobs != JOBS_SHOWN else ""}
        return self._page(
            "cluster",
            part,
            view=view,
            row=row,
            reading=view.reading,
            may_delete=viewer.may_act(needed_dags(row, facts.lease.value, jobs_too=False)),
            may_stop=lambda each: viewer.may_act([each.owner.dag_id if each.owner else None]),
            more=JOBS_SHOWN,
            shown=jobs,
            link=lambda **change: _query({**query, **change}),
        )

    def _log(
        self,
        source: Source,
        facts: ClusterFacts,
        row: ClusterRow,
        job: str,
        viewer: Viewer,
        seconds: float,
        patient: bool,
    ) -> LogView | None:
        visible = next((each for each in row.jobs if job and not each.hidden and each.job.submission_id == job), None)
        if visible is None:
            return None
        if not viewer.may_read_logs(visible.owner.dag_id if visible.owner else None):
            return log_view(visible, Cached[LogTail](), facts.cluster, time.time(), refused=True)
        # The job with the values of its environment variables, which are masked in the log.
        whole = next(each for each in facts.jobs.value or () if each.submission_id == job)
        seen = self.service.log(source, facts.cluster, whole, seconds, patient=patient)
        return log_view(VisibleJob(visible.job, visible.owner), seen, facts.cluster, time.time())

    def _missing(self, source: Source, cluster_id: str, listed: Cached[Any], part: str) -> HTMLResponse:
        reading = listed.reading
        where = f"Connection {source.gcp_conn_id}, region {source.location}"
        problem = Problem.of(where, listed.error) if listed.error else None
        # The script refreshes a page that exists, even if its cluster has just been deleted.
        status = 200 if reading or problem or part else 404
        return self._page(
            "missing", part, status, cluster_id=cluster_id, source=source, reading=reading, problem=problem
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
        answer = self._page("refused", "", error.status_code, message=str(error.detail), reading=False)
        answer.status_code = error.status_code
        return answer

    def _page(self, name: str, part: str, status: int = 200, **values: Any) -> HTMLResponse:
        template = "part.html" if part else "page.html"
        text = self._templates.get_template(template).render(content=f"{name}.html", metrics=METRICS, **values)
        # What a job prints may not be encodable.
        return HTMLResponse(storable_text(text), status)


def _left(until: float) -> float:
    """Return the seconds left for all reads, and at least a minimum, so that cached data is shown."""
    return max(0.1, until - time.monotonic())


def _query(values: dict[str, Any]) -> str:
    kept = {key: value for key, value in values.items() if value not in ("", None)}
    return f"?{urlencode(kept, quote_via=quote)}" if kept else "?"


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
