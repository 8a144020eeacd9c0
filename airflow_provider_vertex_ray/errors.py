"""Typed errors; each one says what happened and what to do about it.

A trigger detects an error in the triggerer, and the worker raises it: ``to_dict`` and ``error_from_dict`` carry its
type, message and details from one process to the other as JSON.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""NUL, which Postgres refuses in texts and JSON, and lone surrogates, which UTF-8 cannot encode."""


def storable_text(text: str) -> str:
    """Return a text that a log, a database and a page can hold: NUL and lone surrogates become U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


class VertexRayError(Exception):
    """Base class of this package's errors.

    :param message: what happened, in one sentence
    :param details: facts for programs, such as ``{"exit_code": 3}``; must be JSON-serialisable
    """

    remedy: ClassVar[str] = ""
    """What to do about errors of this class; appended to the message."""

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        # It often quotes a service or a job.
        message = storable_text(message)
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details or {}

    def __str__(self) -> str:
        # On the last line of a quoted log, it would look like a part of that log.
        between = "\n" if "\n" in self.message else ". " if self.message[-1:].isalnum() else " "
        return f"{self.message}{between}{self.remedy}".strip() if self.remedy else self.message.strip()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.details)

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON, for a trigger's event."""
        return {"type": type(self).__name__, "message": self.message, "details": self.details}


class NotStorableError(VertexRayError):
    """A value from a cluster or a service cannot be stored by Airflow, such as a whole number of more than 64 bits."""


# --- answers of the Vertex AI API -----------------------------------------------------------------------------------


class ServiceError(VertexRayError):
    """The service answered with an error that has no more specific type."""


class InvalidRequestError(ServiceError):
    """The service rejected the content of the request (INVALID_ARGUMENT)."""

    remedy = "Correct the field that the service names; nothing was changed."


class RequestTooLargeError(ServiceError):
    """The service, or a proxy in front of it, rejected the request as too large (413)."""

    remedy = (
        "Nothing was changed. Send less: use the gs:// URI of a zip file as working_dir or in py_modules, and pass "
        "large arguments through Cloud Storage."
    )


class NotAuthorisedError(ServiceError):
    """The credentials were rejected (401) or lack a permission (403)."""

    remedy = (
        "Check the Airflow connection's credentials and impersonation chain, and make sure that the account has "
        "roles/aiplatform.user (to run jobs) or roles/aiplatform.admin (to create, resize and delete clusters). A "
        "misspelt project_id is answered in the same way."
    )


class CredentialsError(NotAuthorisedError):
    """The Airflow connection has no credentials, or credentials that give no access token."""

    remedy = (
        "Check the key or the credential configuration in the connection, and the impersonation chain; without either, "
        "provide application default credentials, such as with 'gcloud auth application-default login'. For the local "
        "emulator, set VERTEX_RAY_EMULATOR_HOST."
    )


class EmulatorError(NotAuthorisedError):
    """VERTEX_RAY_EMULATOR_HOST is set, but no emulator answers there, or it has another project."""

    remedy = ""


class ClusterNotFoundError(ServiceError):
    """The cluster does not exist."""

    remedy = "Check cluster_id, project_id and location; a deleted cluster cannot be restored."


class ClusterExistsError(ServiceError):
    """A cluster with this id already exists and was not created by this task."""

    remedy = "Choose another cluster_id, or attach to the existing cluster with VertexRayGetClusterOperator."


class NameNotReusableError(ServiceError):
    """The id belonged to a cluster that was deleted recently and cannot be reused yet."""

    remedy = (
        "Vertex AI blocks the id of a deleted cluster for up to 2 hours. Try again later, or use another id. "
        "VertexRayCreateClusterOperator tries <cluster_id>-2, <cluster_id>-3 and so on by itself."
    )


class PreconditionError(ServiceError):
    """The current state of the resource does not allow the request (FAILED_PRECONDITION)."""


class QuotaExceededError(ServiceError):
    """The cluster exceeds the project's training quota in the region."""

    remedy = (
        "Request an increase of the named quota (IAM & Admin > Quotas, service aiplatform.googleapis.com), "
        "use fewer or smaller nodes, or let locations=[…] name other regions to try."
    )


class StockoutError(ServiceError):
    """The region currently has no capacity for the requested machines."""

    remedy = "Try again later, use another machine type or accelerator, or let locations=[…] name other regions to try."


class NetworkExhaustedError(ServiceError):
    """The reserved IP ranges of the peered network have no free block left."""

    remedy = "Allocate a larger range for private services access, or use another one in reserved_ip_ranges."


class NetworkSetupError(ServiceError):
    """The network, the network attachment or the peering that the cluster needs does not exist or cannot be used."""

    remedy = (
        "Check network or psc_interface_config: a network attachment must exist in the region of the cluster, and "
        "Vertex AI's service agent must have access to it. VertexRayPreflightOperator checks both."
    )


class RateLimitedError(ServiceError):
    """The service still rejects requests as too frequent (429) after several retries."""

    remedy = "Increase poll_interval, or run fewer tasks at the same time."


class ServiceUnavailableError(ServiceError):
    """The service could not be reached or answered 5xx, even after several retries."""

    remedy = "The problem is usually temporary; retry the task."


class UnreadableAnswerError(ServiceUnavailableError):
    """An answer could not be read: it is empty, cut off, too large, or has another form than the service's answers.

    It says nothing about what was asked for, so it is retried and waited out like no answer at all.
    """

    remedy = "A proxy or a maintenance page usually causes this for a short time; retry the task."


# --- project set-up -------------------------------------------------------------------------------------------------


class ServiceDisabledError(NotAuthorisedError):
    """A required API is not enabled in the project."""

    remedy = "Enable it with gcloud services enable; this takes effect within a few minutes."


class PreflightFailedError(VertexRayError):
    """The preflight found a problem that prevents the cluster from being created or used."""

    remedy = "Each finding in the task's log and XCom includes the command that fixes it."


class QuotaTooSmallError(QuotaExceededError):
    """The limit of a training quota is smaller than the cluster, so waiting does not help."""


# --- clusters -------------------------------------------------------------------------------------------------------


class ClusterFailedError(VertexRayError):
    """The cluster is in state ERROR."""

    remedy = "Delete it and create a new one; a failed cluster does not recover."


class ClusterSpecMismatchError(VertexRayError):
    """The existing shared cluster does not match the requested spec, and on_spec_mismatch is "fail"."""

    remedy = (
        'Use the spec of the existing cluster, set on_spec_mismatch="replace" to create a new generation, or use '
        "another shared_name."
    )


class ClusterInUseError(VertexRayError):
    """The smaller cluster would have too few resources for what currently runs on it."""

    remedy = "Wait for the jobs to end, keep more nodes, or use force=True, which may kill work on the removed nodes."


class BudgetExceededError(VertexRayError):
    """The cluster has cost more than max_cost."""

    remedy = "Delete the cluster once its jobs have ended, or increase max_cost."


class ProvisioningTimeoutError(VertexRayError):
    """The cluster did not reach RUNNING within provision_timeout."""

    remedy = (
        "Creating a cluster usually takes 10 to 20 minutes, sometimes longer. Increase provision_timeout, or check the "
        "cluster in the Google Cloud console."
    )


class DashboardNotReadyError(VertexRayError):
    """The cluster is RUNNING, but its dashboard, which serves the Jobs API, did not respond in time."""

    remedy = (
        "The dashboard may take five minutes to start after the cluster reaches RUNNING. If it never responds, the "
        "head node is too small (use n1-standard-16 or larger) or the network is in the way (clusters that were not "
        "reachable through a public or peered network were, through a Private Service Connect interface). If it "
        "answers 401 or 403, the account needs roles/aiplatform.user."
    )


class NotARayClusterError(VertexRayError):
    """The persistent resource is not a Ray cluster."""

    remedy = "Use a persistent resource that was created as a Ray cluster."


class ResizeFailedError(VertexRayError):
    """The cluster does not have the requested number of nodes after a resize."""


class OperationTimeoutError(VertexRayError):
    """A resize or a deletion did not finish in time; Vertex AI is still working on it."""


# --- jobs -----------------------------------------------------------------------------------------------------------


class JobNotFoundError(VertexRayError):
    """The job does not exist on the cluster."""


class JobRunningError(VertexRayError):
    """A job cannot be deleted while it is pending or running."""

    remedy = "Stop it with VertexRayStopJobOperator first, or wait until it ends."


class SubmissionIdTakenError(VertexRayError):
    """The submission id belongs to a job that this task did not submit."""

    remedy = "Leave submission_id unset to let the task choose its own id, or use one that is unique on the cluster."


class JobFailedError(VertexRayError):
    """The Ray job ended with status FAILED."""


class JobsFailedError(VertexRayError):
    """Some of the Ray jobs of a task that runs many did not succeed."""

    remedy = "A retry of the task runs only these jobs again; the XCom named jobs has the results of the others."


class VertexRayTaskError(JobFailedError):
    """The function of a ``@task.vertex_ray`` task raised an exception; the message is the remote traceback."""


class JobOutputError(VertexRayError):
    """The job succeeded, but its output could not be read to its end, so its result is not known."""

    remedy = "Retry the task: it takes the output of the same job and does not run it again."


class JobStoppedError(VertexRayError):
    """The Ray job was stopped before it ended."""


class JobLostError(VertexRayError):
    """The job can no longer be found or reached, because its cluster or head node is gone."""

    remedy = "The outcome of the job is unknown. Check what it may have written before you run it again."


class JobPendingTimeoutError(VertexRayError):
    """The driver of the job did not start within pending_timeout."""

    remedy = (
        "The head node of a Ray cluster on Vertex AI has 0 logical CPUs, so a driver that requests "
        "entrypoint_num_cpus, entrypoint_num_gpus or entrypoint_resources needs a worker node with that much free."
    )


class JobTimeoutError(VertexRayError):
    """The job exceeded job_timeout and was stopped."""


class JobNotStoppedError(VertexRayError):
    """An earlier job of the task is still active after a stop request, so the next one cannot start."""

    remedy = "Check the job on the cluster's dashboard and stop or delete it there, then clear the task."


class PackageTooLargeError(VertexRayError):
    """A local working_dir or an entry of py_modules is larger than Ray's upload limit."""

    remedy = (
        "List what the job does not need in excludes, or upload the package to Cloud Storage as a zip file and use its "
        "gs:// URI."
    )


# --- models ---------------------------------------------------------------------------------------------------------


class ResourceExistsError(ServiceError):
    """A model or endpoint with this id already exists."""

    remedy = "Use another id."


class ModelNotFoundError(ServiceError):
    """The model, or this version of it, does not exist."""


class EndpointNotFoundError(ServiceError):
    """The endpoint does not exist."""


class ArtifactNotFoundError(VertexRayError):
    """The artifact folder contains no file that the serving container can load."""

    remedy = "Write the model with export_model in the training job, or use the folder that contains it."


class DeployFailedError(VertexRayError):
    """The model could not be deployed; what the task had created for it was cleaned up."""


class EndpointNotServingError(VertexRayError):
    """The endpoint has no deployed model that receives traffic."""

    remedy = "Deploy a model to it with VertexRayDeployModelOperator first."


class TrafficError(VertexRayError):
    """A deployed model that has all the traffic of an endpoint cannot be undeployed while others remain without any."""

    remedy = "Give another deployed model the traffic first, or undeploy all models."


class PredictionError(VertexRayError):
    """The model server rejected the instances."""


# --- BigQuery -------------------------------------------------------------------------------------------------------


class BigQueryTableError(VertexRayError):
    """A dataset or table of the BigQuery step does not exist, cannot be read, or is not suitable for the step."""


class BytesBilledLimitError(VertexRayError):
    """Reading the source would bill more than maximum_bytes_billed."""

    remedy = "Read fewer columns, filter by partition, or increase maximum_bytes_billed."


class BigQueryStepError(JobFailedError):
    """The BigQuery step failed on the cluster; the target table is unchanged."""


# --- monitoring -----------------------------------------------------------------------------------------------------


class LogsNotAuthorisedError(NotAuthorisedError):
    """The connection's account is not allowed to read the project's log entries."""

    remedy = "Grant roles/logging.viewer on the project to the account, and enable logging.googleapis.com in it."


class MetricsNotAuthorisedError(NotAuthorisedError):
    """The connection's account is not allowed to read the project's metrics."""

    remedy = "Grant roles/monitoring.viewer on the project to the account, and enable monitoring.googleapis.com in it."


# --- leases ---------------------------------------------------------------------------------------------------------


class ClusterClosingError(VertexRayError):
    """The cluster is about to be deleted or scaled down, so it accepts no new work."""

    remedy = "Run the task that ensures the shared cluster again; its next generation accepts work."


class LeaseHeldError(VertexRayError):
    """The cluster is not deleted or scaled down, because its lease is held."""


class LeaseStoreError(VertexRayError):
    """The lease of a cluster could not be read or written."""

    remedy = (
        "Check lease_uri, and make sure that the connection's account has roles/storage.objectUser on the bucket. "
        "A cluster whose lease cannot be read counts as in use and is not deleted."
    )


class EmulatorStorageError(LeaseStoreError):
    """``lease_uri`` is set, but the emulator runs without Cloud Storage."""

    remedy = (
        "Start it with 'vertex-ray-emulator start --with storage', and start Airflow with the STORAGE_EMULATOR_HOST "
        "that 'vertex-ray-emulator env' prints; or leave lease_uri out."
    )


class LeaseStoreUnavailableError(LeaseStoreError):
    """The leases could not be read or written at the moment; a later attempt may succeed."""

    remedy = "Try again; if it lasts, check that the host of Cloud Storage can be reached."


class LeaseUnreadableError(LeaseStoreError):
    """The stored lease is not in a format that this version of the package can read."""

    remedy = "Check the object below lease_uri, and delete it once you are sure that nobody uses the cluster."


# --- the Ray Client -------------------------------------------------------------------------------------------------


class RayClientVersionError(VertexRayError):
    """The Ray Client requires the Python and Ray versions of the cluster; this process has others."""


class RayClientConnectedError(VertexRayError):
    """Ray is already connected in this process, which can have only one connection at a time."""

    remedy = "Leave the earlier connect() block or call ray.shutdown() first."


def _registry(base: type[VertexRayError]) -> dict[str, type[VertexRayError]]:
    found = {base.__name__: base}
    for sub in base.__subclasses__():
        found.update(_registry(sub))
    return found


def error_from_dict(data: dict[str, Any]) -> VertexRayError:
    """Return the error that ``to_dict`` wrote; a type that this version does not know becomes the base class."""
    kind = _registry(VertexRayError).get(str(data.get("type")), VertexRayError)
    return kind(str(data.get("message", "unknown error")), dict(data.get("details") or {}))


_LONGEST_VALUE = 200
_LONGEST_REPR = 10_000
_URI_USER = re.compile(r"(?<=://)[^/?#\s'\"]*(?=@)")
_URI_QUERY = re.compile(r"(://[^?\s'\"]*\?)[^\s'\"]+")


def _shown(value: object) -> str:
    """Return the beginning of a value's text, or its type where there is none: too many digits or levels, an error.

    Passwords, tokens and signatures in URIs are hidden.
    """
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001 - whatever its repr raises
        return f"<{type(value).__name__} without a text>"
    # Only the beginning is shown.
    shown = _URI_QUERY.sub(r"\1***", _URI_USER.sub("***", shown[:_LONGEST_REPR]))
    return shown if len(shown) <= _LONGEST_VALUE else shown[:_LONGEST_VALUE] + "…"


class InvalidArgumentError(ValueError):
    """An argument that Vertex AI would reject, or that would make a cluster on which jobs hang.

    Raised at DAG parse time where the value is known then, otherwise before the first request.

    :param field: path of the field as the user writes it, e.g. ``worker_node_types[0].node_count``
    :param value: the value that was given
    :param rule: what to use instead, as a full sentence
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        # All three as args, so that the error survives pickling between Airflow's processes.
        super().__init__(field, value, rule)
        self.field = field
        self.value = value
        self.rule = rule

    def __str__(self) -> str:
        return f"Invalid value for {self.field}: {_shown(self.value)}. {self.rule}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.field!r}, {_shown(self.value)}, {self.rule!r})"
