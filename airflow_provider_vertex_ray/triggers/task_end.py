"""End a task in the triggerer, without a worker: from the outcome of its wait to its XComs and its state.

Airflow stores the XComs of such an event as JSON texts, so that they are stored here, before the event. A trigger may
run twice, in two triggerers. Both then store the same values, and Airflow takes an event only for a task that is still
deferred with this very trigger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent

from airflow_provider_vertex_ray.core.function.results import (
    FAIL_AT_ONCE,
    Skipped,
    Stored,
    function_error,
    function_outcome,
)
from airflow_provider_vertex_ray.core.storable import storable
from airflow_provider_vertex_ray.errors import JobFailedError, JobStoppedError, VertexRayError, error_from_dict
from airflow_provider_vertex_ray.triggers.airflow_task import DEFERRED, push_xcom, task_state

JOB = "job"
FUNCTION = "function"
WAIT = "wait"
"""What a task returns: a job with its cluster, the result of a function, or the result of the wait itself."""

RETURN_VALUE = "return_value"
"""XCom key of a task's result."""

ENDS_HERE = "The task ends in the triggerer"
"""Start of the last line in the log of a task that no worker resumes, which the tests of a whole Airflow look for."""


@dataclass(frozen=True)
class TaskEnd:
    """How a task ends in the triggerer, as its operator decides before it defers.

    :param returns: what the task returns: ``job``, ``function`` or ``wait``
    :param push: whether the result becomes an XCom
    :param multiple_outputs: whether each key of the result becomes an XCom of its own, too
    :param failures: whether a task that failed ends in the triggerer; otherwise a worker raises the error
    :param skips: whether a skipped task ends in the triggerer
    :param skip_on_exit_code: exit codes of the driver with which the task is skipped
    :param link_facts: facts for the links that lack the address of the dashboard; None if nothing is missing
    """

    returns: str
    push: bool
    multiple_outputs: bool = False
    failures: bool = False
    skips: bool = False
    skip_on_exit_code: Collection[int] = ()
    link_facts: dict[str, str | None] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the decision as JSON, for the trigger's arguments."""
        return {**asdict(self), "skip_on_exit_code": list(self.skip_on_exit_code)}


@dataclass(frozen=True)
class Ending:
    """The end of a task.

    :param event: class of the event that ends it
    :param xcoms: XComs to store before, by key, in order
    :param message: reason for a failure or a skip, for the task's log
    """

    event: type[TaskSuccessEvent] | type[TaskFailedEvent] | type[TaskSkippedEvent]
    xcoms: dict[str, Any] = field(default_factory=dict)
    message: str = ""

    @property
    def state(self) -> str:
        """State of the task after its end."""
        return {TaskSuccessEvent: "success", TaskFailedEvent: "failed", TaskSkippedEvent: "skipped"}[self.event]


class WorkerNeededError(Exception):
    """A worker must end the task; the message says why, and is empty where that is not worth a line in the log."""


class _SkipError(Exception):
    """The task is skipped."""


def job_result(result: dict[str, Any], passed: dict[str, Any]) -> dict[str, Any]:
    """Return what the task of a job returns.

    :param result: result of the wait
    :param passed: what the operator passed through the trigger
    """
    return {**result, **{key: passed.get(key) for key in ("cluster_id", "dashboard_url")}}


def skip_reason(error: JobFailedError, codes: Collection[int]) -> str | None:
    """Return the reason for which the task of a failed job is skipped; None if it failed.

    :param codes: exit codes of the driver with which the task is skipped
    """
    code = error.details.get("exit_code")
    return f"The job ended with exit code {code}; skipped" if code in codes else None


def ending_of(payload: dict[str, Any], end: TaskEnd, notify: Callable[[str], None] | None = None) -> Ending:
    """Return the end of a task whose wait is over.

    :param payload: payload of the trigger's event, with which a worker would resume
    :param end: the operator's decision
    :param notify: receives a sentence for each change of the result that alters a number or a key
    :raises WorkerNeededError: a worker must end the task
    """
    passed = payload.get("passthrough") or {}
    try:
        if payload["status"] != "success":
            raise error_from_dict(payload["error"])
        value = storable(_value(payload["result"], passed, end), "result", notify=notify)
    except _SkipError as skip:
        return _skipped(str(skip), end)
    except JobFailedError as error:
        if reason := skip_reason(error, end.skip_on_exit_code):
            return _skipped(reason, end)
        return _failed(function_error(error) if end.returns == FUNCTION else error, end)
    except JobStoppedError as error:
        if passed.get("adopted"):
            raise WorkerNeededError("it may have to submit the next attempt") from None
        return _failed(error, end)
    except VertexRayError as error:
        return _failed(error, end)
    xcoms: dict[str, Any] = {}
    if end.push and value is not None:
        if end.multiple_outputs:
            if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
                raise WorkerNeededError("its result is not a dict of strings, and multiple_outputs is set")
            xcoms.update(value)
        xcoms[RETURN_VALUE] = value
    return Ending(TaskSuccessEvent, xcoms)


def _value(result: dict[str, Any], passed: dict[str, Any], end: TaskEnd) -> Any:
    if end.returns == WAIT:
        return result
    job = job_result(result, passed)
    if end.returns == JOB:
        return job
    outcome = function_outcome(job)
    if isinstance(outcome, Skipped):
        raise _SkipError(outcome.reason)
    if isinstance(outcome, Stored):
        raise WorkerNeededError(f"it reads the function's result from {outcome.path}")
    return outcome.value


def _skipped(reason: str, end: TaskEnd) -> Ending:
    if not end.skips:
        raise WorkerNeededError
    return Ending(TaskSkippedEvent, message=reason)


def _failed(error: VertexRayError, end: TaskEnd) -> Ending:
    if not end.failures or error.details.get("airflow") == FAIL_AT_ONCE:
        raise WorkerNeededError
    # As a traceback shows it.
    return Ending(TaskFailedEvent, message=f"{type(error).__name__}: {error}")


async def end_event(trigger: BaseTrigger, payload: dict[str, Any], decision: dict[str, Any]) -> TriggerEvent | None:
    """Store the XComs of a task and return the event that ends it; None if a worker must end it.

    :param trigger: trigger of the task
    :param payload: payload with which a worker would resume
    :param decision: ``TaskEnd.to_json()`` of the operator
    """
    ti: Any = trigger.task_instance
    try:
        end = TaskEnd(**decision)
        ending = ending_of(payload, end, trigger.log.warning)
        if await task_state(ti) != DEFERRED:
            # It was killed, or another triggerer has ended it: XComs stored now could be those of its next try.
            return None
        for key, value in {**_link_xcoms(end, ending), **ending.xcoms}.items():
            await push_xcom(ti, key, value)
    except WorkerNeededError as reason:
        if str(reason):
            trigger.log.info("A worker ends this task: %s", reason)
        return None
    except Exception:
        trigger.log.warning("Could not end this task in the triggerer; a worker ends it", exc_info=True)
        return None
    if ending.event is TaskFailedEvent:
        trigger.log.error("%s", ending.message)
    elif ending.message:
        trigger.log.info("%s", ending.message)
    trigger.log.info("%s, without a worker: %s", ENDS_HERE, ending.state)
    return ending.event()


def _link_xcoms(end: TaskEnd, ending: Ending) -> dict[str, Any]:
    """Return the XComs of the links that only the end of the wait makes complete."""
    value = ending.xcoms.get(RETURN_VALUE)
    url = value.get("dashboard_url") if isinstance(value, dict) else None
    if not url or end.link_facts is None:
        return {}
    from airflow_provider_vertex_ray.links.base import LINK_KEY
    from airflow_provider_vertex_ray.links.cluster import VertexRayDashboardLink

    facts = {key: text for key, text in end.link_facts.items() if text}
    facts["dashboard_uri"] = str(url).removeprefix("https://")
    link = VertexRayDashboardLink()
    # Airflow 3 shows a link from the XCom that a worker stores at the end of a task; 2.11 asks the link each time.
    found = {link.xcom_key: link.url(facts)} if hasattr(link, "xcom_key") else {}
    return {LINK_KEY: facts, **found}
