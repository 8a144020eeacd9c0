"""What can go wrong, as types. Each says what happened and what to do about it.

The errors travel: a trigger finds one in the triggerer, the worker raises it. ``to_dict`` and ``error_from_dict`` carry
type, message and details over that border as JSON.
"""

from __future__ import annotations

from typing import Any, ClassVar


class VertexRayError(Exception):
    """Base of this package's errors.

    :param message: What happened, in one sentence.
    :param details: JSON-able facts for programs, such as ``{"exit_code": 3}``.
    """

    remedy: ClassVar[str] = ""

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details or {}

    def __str__(self) -> str:
        # Below lines of a log it would pass for one of them.
        return f"{self.message}{chr(10) if chr(10) in self.message else ' '}{self.remedy}".strip()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.details)

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON, for a trigger's event."""
        return {"type": type(self).__name__, "message": self.message, "details": self.details}


# --- what the Vertex AI API answers ---------------------------------------------------------------------------------


class ServiceError(VertexRayError):
    """The service answered with an error that has no closer type here."""


class InvalidRequestError(ServiceError):
    """The service refused the request's content (INVALID_ARGUMENT)."""

    remedy = "Correct the field that the service names; the request was not carried out."


class NotAuthorisedError(ServiceError):
    """The credentials are not accepted (401) or lack a permission (403)."""

    remedy = (
        "Check the Airflow connection's credentials and impersonation chain, and that their account has "
        "roles/aiplatform.user (jobs) or roles/aiplatform.admin (create, resize and delete clusters)."
    )


class ClusterNotFoundError(ServiceError):
    """There is no such cluster."""

    remedy = "Check cluster_id, project_id and location; a deleted cluster is gone for good."


class ClusterExistsError(ServiceError):
    """A cluster with this id exists already and was not created by this task."""

    remedy = "Choose another cluster_id, or attach to the existing cluster with VertexRayGetClusterOperator."


class NameNotReusableError(ServiceError):
    """The id belonged to a cluster that was deleted a short time ago."""

    remedy = (
        "Vertex AI blocks a deleted cluster's id for up to 2 hours: use an id that changes with the run, "
        "such as etl-{{ ts_nodash | lower }}."
    )


class PreconditionError(ServiceError):
    """The resource's state does not allow the call (FAILED_PRECONDITION)."""


class QuotaExceededError(ServiceError):
    """The project's training quota in the region does not cover the cluster."""

    remedy = (
        "Ask for more of the quota metric that is named (IAM & Admin > Quotas, service aiplatform.googleapis.com), "
        "use fewer or smaller nodes, or another region."
    )


class StockoutError(ServiceError):
    """The region has no machines of the kind asked for at the moment."""

    remedy = "Try again later, or use another machine type, accelerator or region."


class NetworkExhaustedError(ServiceError):
    """The peered network's reserved IP ranges have no free block left."""

    remedy = "Allocate a larger range for private services access, or name another one in reserved_ip_ranges."


class RateLimitedError(ServiceError):
    """The service asked for fewer requests (429), also after retries."""

    remedy = "Raise poll_interval, or run fewer tasks at a time."


class ServiceUnavailableError(ServiceError):
    """The service could not be reached or answered 5xx, also after retries."""

    remedy = "This is usually short; the task can be retried."


# --- setting up -----------------------------------------------------------------------------------------------------


class ServiceDisabledError(NotAuthorisedError):
    """An API that is needed is not enabled in the project."""

    remedy = "Enable it with gcloud services enable; it takes effect within some minutes."


class PreflightFailedError(VertexRayError):
    """The preflight has found something with which the cluster can not be created or used."""

    remedy = "Each finding in the task's log and in its XCom has the command that mends it."


class QuotaTooSmallError(QuotaExceededError):
    """The limit of a training quota is smaller than what the cluster needs, so that waiting is of no use."""


# --- clusters -------------------------------------------------------------------------------------------------------


class ClusterFailedError(VertexRayError):
    """The cluster is in state ERROR."""

    remedy = "Delete it and create another one; a failed cluster does not recover."


class ClusterSpecMismatchError(VertexRayError):
    """The shared cluster that is there does not look as the spec says, and on_spec_mismatch is "fail"."""

    remedy = 'Use its spec, on_spec_mismatch="replace" for a new generation, or another shared_name.'


class ClusterInUseError(VertexRayError):
    """The cluster would become smaller than what is used on it."""

    remedy = "Wait for the jobs to end, ask for more nodes, or use force=True, which may end what runs on the others."


class BudgetExceededError(VertexRayError):
    """The cluster has cost more than max_cost."""

    remedy = "Let it be deleted once its jobs have ended, or raise max_cost."


class ProvisioningTimeoutError(VertexRayError):
    """The cluster did not become RUNNING in time."""

    remedy = "Creation takes 10 to 20 minutes, at times longer: raise provision_timeout, or look at the console."


class DashboardNotReadyError(VertexRayError):
    """The cluster runs, but its dashboard (and so its Jobs API) did not answer in time."""

    remedy = (
        "After RUNNING the dashboard may need five minutes. If it stays silent the head node is probably too small: "
        "n1-standard-16 is advised."
    )


class NotARayClusterError(VertexRayError):
    """The persistent resource has no Ray on it."""

    remedy = "Name a persistent resource that was created as a Ray cluster."


class ResizeFailedError(VertexRayError):
    """After a resize the cluster does not have the nodes that were asked for."""


class OperationTimeoutError(VertexRayError):
    """A resize or a delete did not end in time. It goes on at the service."""


# --- jobs -----------------------------------------------------------------------------------------------------------


class JobNotFoundError(VertexRayError):
    """The cluster does not know the job."""


class JobRunningError(VertexRayError):
    """A job that has not ended can not be deleted."""

    remedy = "Stop it first, with VertexRayStopJobOperator, or wait for its end."


class SubmissionIdTakenError(VertexRayError):
    """The submission id is in use by a job that this task did not submit."""

    remedy = "Leave submission_id unset for an id of the task's own, or choose one that nobody else uses."


class JobFailedError(VertexRayError):
    """The Ray job ended in FAILED."""


class VertexRayTaskError(JobFailedError):
    """The function of a ``@task.vertex_ray`` failed on the cluster; the message is the remote traceback."""


class JobStoppedError(VertexRayError):
    """The Ray job was stopped before it ended."""


class JobLostError(VertexRayError):
    """The job can not be found or reached any more: its cluster or head node is gone."""

    remedy = "The job's outcome is unknown. Check what it may have written before running it again."


class JobPendingTimeoutError(VertexRayError):
    """The job's driver was not started in time."""

    remedy = (
        "The head node of a Vertex AI Ray cluster has 0 logical CPUs, so a driver that asks for "
        "entrypoint_num_cpus, entrypoint_num_gpus or entrypoint_resources needs a worker node with that much free."
    )


class JobTimeoutError(VertexRayError):
    """The job ran longer than job_timeout and was stopped."""


class JobNotStoppedError(VertexRayError):
    """A job that must end before the task's next one may start goes on, though it was told to stop."""

    remedy = "Look at it on the cluster's dashboard, and stop or delete it there; then clear the task."


class PackageTooLargeError(VertexRayError):
    """A local working_dir or one of py_modules is larger than Ray's upload limit."""

    remedy = "Name what the job does not need in excludes, or put it into Cloud Storage."


# --- models ---------------------------------------------------------------------------------------------------------


class ResourceExistsError(ServiceError):
    """A model or endpoint of that id is there already."""

    remedy = "Choose another id."


class ModelNotFoundError(ServiceError):
    """There is no such model, or no such version of it."""


class EndpointNotFoundError(ServiceError):
    """There is no such endpoint."""


class ArtifactNotFoundError(VertexRayError):
    """The artifact folder has no file that the serving container can load."""

    remedy = "Let the training job write it with export_model, or give the folder that has it."


class DeployFailedError(VertexRayError):
    """The model was not deployed; what the task had made for it is gone again."""


class EndpointNotServingError(VertexRayError):
    """The endpoint has no deployed model that gets traffic."""

    remedy = "Deploy a model to it first, with VertexRayDeployModelOperator."


class PredictionError(VertexRayError):
    """The model's server refused the instances."""


# --- BigQuery -------------------------------------------------------------------------------------------------------


class BigQueryTableError(VertexRayError):
    """A dataset or table of the step is not there, can not be read, or is not as the step needs it."""


class BytesBilledLimitError(VertexRayError):
    """Reading the source would bill more than maximum_bytes_billed."""

    remedy = "Read fewer columns, filter by the partition, or raise maximum_bytes_billed."


class BigQueryStepError(JobFailedError):
    """The BigQuery step failed on the cluster; the target table is as it was."""


# --- monitoring -----------------------------------------------------------------------------------------------------


class LogsNotAuthorisedError(NotAuthorisedError):
    """The connection's account may not read the project's log entries."""

    remedy = "Grant roles/logging.viewer in the project to the account, and enable logging.googleapis.com there."


class MetricsNotAuthorisedError(NotAuthorisedError):
    """The connection's account may not read the project's metrics."""

    remedy = "Grant roles/monitoring.viewer in the project to the account, and enable monitoring.googleapis.com there."


# --- leases ---------------------------------------------------------------------------------------------------------


class ClusterClosingError(VertexRayError):
    """Somebody is about to delete the cluster, or to make it smaller, so it takes no new work."""

    remedy = "Ensure the shared cluster again: its next generation takes the work."


class LeaseHeldError(VertexRayError):
    """Somebody holds the cluster's lease, so it is not deleted or made smaller."""


class LeaseStoreError(VertexRayError):
    """The leases can not be read or written."""

    remedy = (
        "Check lease_uri, and that the connection's account has roles/storage.objectUser on the bucket. What can not "
        "be read counts as use: no cluster is deleted meanwhile."
    )


class LeaseUnreadableError(LeaseStoreError):
    """What is stored is no lease that this version of the package knows."""

    remedy = "Look at the object in lease_uri; delete it once you know that nobody uses the cluster."


# --- the Ray Client -------------------------------------------------------------------------------------------------


class RayClientVersionError(VertexRayError):
    """This process's Python or Ray is not the cluster's, which the Ray Client demands."""


class RayClientConnectedError(VertexRayError):
    """Ray is connected in this process already; it has one connection at a time."""

    remedy = "Leave the earlier connect() block, or call ray.shutdown(), first."


def _registry(base: type[VertexRayError]) -> dict[str, type[VertexRayError]]:
    found = {base.__name__: base}
    for sub in base.__subclasses__():
        found.update(_registry(sub))
    return found


def error_from_dict(data: dict[str, Any]) -> VertexRayError:
    """Read back what ``to_dict`` wrote; an unknown type (an older worker) becomes the base class."""
    kind = _registry(VertexRayError).get(str(data.get("type")), VertexRayError)
    return kind(str(data.get("message", "unknown error")), dict(data.get("details") or {}))


_LONGEST_VALUE = 200


class InvalidArgumentError(ValueError):
    """A value that the service would refuse, or that makes a cluster on which jobs hang.

    Raised at DAG parse where the value is known there, else before the first call.

    :param field: path of the field as the user writes it, e.g. ``worker_node_types[0].node_count``.
    :param value: what was given.
    :param rule: what is asked for instead, as a sentence that tells what to do.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        # All three as args, so that the error survives pickling between Airflow's processes.
        super().__init__(field, value, rule)
        self.field = field
        self.value = value
        self.rule = rule

    def __str__(self) -> str:
        shown = repr(self.value)
        if len(shown) > _LONGEST_VALUE:
            shown = shown[:_LONGEST_VALUE] + "…"
        return f"{self.field}: {shown} is refused: {self.rule}"
