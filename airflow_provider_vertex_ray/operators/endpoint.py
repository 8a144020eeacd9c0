"""Operators that deploy models to endpoints and undeploy them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_choice, check_duration, is_whole, known_at_run_time
from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.serving.traffic import split_with
from airflow_provider_vertex_ray.errors import (
    InvalidArgumentError,
    RateLimitedError,
    ServiceUnavailableError,
    VertexRayError,
    error_from_dict,
)
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.serving import VertexRayEndpointLink
from airflow_provider_vertex_ray.operators.arguments import (
    check_counts,
    check_flags,
    check_mappings,
    check_strings,
    resolve_deferrable,
)
from airflow_provider_vertex_ray.operators.model_base import CLEAR_EPOCH_LABEL, ModelBaseOperator, clear_epoch_hash
from airflow_provider_vertex_ray.operators.owner_labels import owner_labels
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.serving import (
    CLEAN_UP_SECONDS,
    VertexRayEndpointTrigger,
    VertexRayUndeployTrigger,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

MADE_LABEL = "made-by"
MADE_HERE = "vertex-ray-deploy"
"""Label of an endpoint that ``VertexRayDeployModelOperator`` created."""

REJECTED_SECONDS = 60.0
"""Seconds allowed for deleting an endpoint that was created for a deployment which Vertex AI rejected."""

DELETE_ENDPOINT = ("if_created", "always", "never")
"""Values of ``delete_endpoint``."""


class VertexRayDeployModelOperator(ModelBaseOperator):
    """Deploy a model to an endpoint and wait until it serves; it incurs charges until it is undeployed.

    The task derives the ID of the deployed model, and of an endpoint that it creates, from the task instance. A retry
    therefore finds the deployment of an earlier try, and nothing is deployed twice. If the deployment fails, times out
    or is killed, the task undoes it: it undeploys the model and deletes an endpoint that it created.

    Returns ``endpoint`` (the resource name), ``endpoint_id``, ``deployed_model_id``, ``deployed_models``,
    ``traffic_split``, ``endpoint_created`` and ``adopted``.

    :param model: model ID or resource name, with ``@version`` to choose a version. (templated)
    :param endpoint_id: ID or resource name of an existing endpoint. None creates an endpoint. (templated)
    :param endpoint_display_name: display name of an endpoint that is created; default: the task ID. (templated)
    :param deployed_model_display_name: display name of the deployed model; default: the task ID. (templated)
    :param machine_type: machine type of each replica.
    :param min_replica_count: minimum number of replicas.
    :param max_replica_count: maximum number of replicas; default: ``min_replica_count``.
    :param accelerator_type: accelerator type of each replica, such as ``NVIDIA_TESLA_T4``.
    :param accelerator_count: number of accelerators of each replica.
    :param autoscaling_targets: target utilisation in percent by metric, such as ``{"cpu": 60, "gpu": 60}``.
    :param service_account: Service account that the container runs as. (templated)
    :param traffic_percentage: percentage of the endpoint's traffic for this model; the other models share the rest in
        proportion to their previous shares. Only 0 and 100 are possible if no other model has traffic.
    :param traffic_split: percentage of the traffic by deployed model ID, instead of ``traffic_percentage``; ``"0"``
        stands for this model. (templated)
    :param deploy_timeout: seconds within which the model must serve; Vertex AI takes 5 to 20 minutes.
    :param poll_interval: seconds between two status requests.
    :param stop_on_kill: whether to undo the deployment when the task is killed or cleared while it waits.
    :param deferrable: whether to wait in the triggerer; default: ``[operators] default_deferrable``.
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises ModelNotFoundError: the model does not exist.
    :raises EndpointNotFoundError: the endpoint does not exist.
    :raises DeployFailedError: Vertex AI could not deploy the model.
    :raises OperationTimeoutError: the model did not serve within ``deploy_timeout``.
    :raises NotAuthorisedError: the credentials lack a permission.
    """

    template_fields: Sequence[str] = (
        "model",
        "endpoint_id",
        "endpoint_display_name",
        "deployed_model_display_name",
        "service_account",
        "traffic_split",
        *ModelBaseOperator.connection_fields,
    )
    operator_extra_links = (VertexRayEndpointLink(),)

    def __init__(
        self,
        *,
        model: str,
        endpoint_id: str | None = None,
        endpoint_display_name: str | None = None,
        deployed_model_display_name: str | None = None,
        machine_type: str = "n1-standard-2",
        min_replica_count: int = 1,
        max_replica_count: int | None = None,
        accelerator_type: str | None = None,
        accelerator_count: int | None = None,
        autoscaling_targets: dict[str, int] | None = None,
        service_account: str | None = None,
        traffic_percentage: int = 100,
        traffic_split: dict[str, int] | None = None,
        deploy_timeout: float = 3600.0,
        poll_interval: float = 15.0,
        stop_on_kill: bool = True,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_resource("models", model, "model")
        if endpoint_id is not None:
            self._check_resource("endpoints", endpoint_id, "endpoint_id")
        check_strings(
            endpoint_display_name=endpoint_display_name,
            deployed_model_display_name=deployed_model_display_name,
            machine_type=machine_type,
            accelerator_type=accelerator_type,
            service_account=service_account,
        )
        most = min_replica_count if max_replica_count is None else max_replica_count
        check_counts(min_replica_count=min_replica_count, max_replica_count=most, accelerator_count=accelerator_count)
        if most < min_replica_count:
            raise InvalidArgumentError(
                "max_replica_count", most, f"Use at least min_replica_count, which is {min_replica_count}."
            )
        if not is_whole(traffic_percentage) or not 0 <= traffic_percentage <= 100:
            raise InvalidArgumentError("traffic_percentage", traffic_percentage, "Use a percentage from 0 to 100.")
        if endpoint_id is None and traffic_split is None and traffic_percentage not in (0, 100):
            raise InvalidArgumentError("traffic_percentage", traffic_percentage, _ONLY_MODEL)
        if (accelerator_type is None) != (accelerator_count is None):
            raise InvalidArgumentError(
                "accelerator_count", accelerator_count, "Set both accelerator_type and accelerator_count, or neither."
            )
        check_mappings(autoscaling_targets=autoscaling_targets, traffic_split=traffic_split)
        for metric in autoscaling_targets or {}:
            check_choice("autoscaling_targets", metric, _METRICS)
        if isinstance(traffic_split, dict) and not any(map(known_at_run_time, traffic_split.values())):
            _check_split(traffic_split)
        check_flags(stop_on_kill=stop_on_kill)
        check_duration("deploy_timeout", deploy_timeout, none_allowed=False)
        check_duration("poll_interval", poll_interval, none_allowed=False)
        self.model = model
        self.endpoint_id = endpoint_id
        self.endpoint_display_name = endpoint_display_name
        self.deployed_model_display_name = deployed_model_display_name
        self.machine_type = machine_type
        self.min_replica_count = min_replica_count
        self.max_replica_count = max_replica_count
        self.accelerator_type = accelerator_type
        self.accelerator_count = accelerator_count
        self.autoscaling_targets = autoscaling_targets
        self.service_account = service_account
        self.traffic_percentage = traffic_percentage
        self.traffic_split = traffic_split
        self.deploy_timeout = deploy_timeout
        self.poll_interval = poll_interval
        self.stop_on_kill = stop_on_kill
        self.deferrable = resolve_deferrable(deferrable)
        self._undo: VertexRayEndpointTrigger | None = None

    def execute(self, context: Context) -> Any:
        """Create the endpoint if needed, start or adopt the deployment, and wait until it serves."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        self.project_id = validate_project(self.project_id or self._connection_project())
        validate_location(self.location)
        if self.traffic_split is not None:
            _check_split(self.traffic_split)
        model = self._resource("models", self.model, "model")
        if self.endpoint_id:
            self._resource("endpoints", self.endpoint_id, "endpoint_id")
        clear_epoch = clear_epoch_hash(context)
        # The ID has one to ten digits, and does not start with 0.
        deployed_id = str(10**9 + int(clear_epoch, 16) % (9 * 10**9))

        deadline = deadline_after(self.deploy_timeout)
        endpoint = run_sync(lambda: self._endpoint(context, model, clear_epoch, deadline))
        persist_link_facts(context, **self._facts(endpoint["name"]))
        made = (endpoint.get("labels") or {}).get(CLEAR_EPOCH_LABEL) == clear_epoch
        split = self._split(endpoint)
        had: dict[str, int] = {str(each["id"]): 0 for each in endpoint.get("deployedModels") or ()}
        undoing = {
            "name": endpoint["name"],
            "delete_endpoint": made,
            # Once the model is deployed, the split is no longer the one from before.
            "previous_split": None if deployed_id in had else had | (endpoint.get("trafficSplit") or {}),
            **self._connection_arguments(),
        }
        # Before the request, whose answer may be lost or come too late for a task that is killed.
        self._undo = VertexRayEndpointTrigger(deployed_model_id=deployed_id, **undoing)
        try:
            operation = run_sync(
                lambda: self.model_hook.deploy_model(endpoint["name"], self._deployed(model, deployed_id), split)
            )
        except VertexRayError as error:
            return self._undo_unanswered(context, error, deployed_id, undoing)
        self.log.info(
            "Deploying %s to %s as deployed model %s"
            if operation
            else "Model %s was already deployed to %s as deployed model %s by an earlier attempt; waiting for it",
            model,
            endpoint["name"],
            deployed_id,
        )
        trigger = VertexRayEndpointTrigger(
            deployed_model_id=deployed_id,
            operation=operation,
            poll_interval=self.poll_interval,
            deadline=deadline,
            stop_on_kill=self.stop_on_kill,
            passthrough={
                "deployed_model_id": deployed_id,
                "endpoint": endpoint["name"],
                "endpoint_created": made,
                "adopted": operation is None,
                "operation": operation,
                "previous_split": undoing["previous_split"],
            },
            **undoing,
        )
        self._undo = trigger
        return self._wait(context, trigger, self.deferrable)

    async def _endpoint(self, context: Context, model: str, clear_epoch: str, deadline: float | None) -> dict[str, Any]:
        """Return the endpoint, which is created if none was given."""
        hook = self.model_hook
        async with hook.session():
            await hook.get_model(model)
            if self.endpoint_id:
                return await hook.get_endpoint(self.endpoint_id)
            labels = {**owner_labels(context), CLEAR_EPOCH_LABEL: clear_epoch, MADE_LABEL: MADE_HERE}
            body = {"displayName": self.endpoint_display_name or self.task_id, "labels": labels}
            endpoint, _ = await hook.ensure_endpoint(f"af-{clear_epoch}", body, deadline)
            return endpoint

    def _undo_unanswered(
        self, context: Context, error: VertexRayError, deployed_id: str, undoing: dict[str, Any]
    ) -> Any:
        """Undo a deployment whose request failed, then raise the error.

        Without an answer, Vertex AI may have started it. A request that it rejected has left at most an endpoint.
        """
        unanswered = isinstance(error, (ServiceUnavailableError, RateLimitedError))
        if not unanswered and not undoing["delete_endpoint"]:
            raise error
        self.log.warning("The request for the deployment failed: %s\nUndeploying the model, if there is one", error)
        trigger = VertexRayUndeployTrigger(
            deployed_model_ids=[deployed_id],
            undo=unanswered,
            deadline=deadline_after(CLEAN_UP_SECONDS if unanswered else REJECTED_SECONDS),
            passthrough={"error": error.to_dict()},
            **undoing,
        )
        return self._wait(context, trigger, self.deferrable and unanswered, "undone")

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Return the endpoint; or undo the deployment, then raise the reason for the failure."""
        passed: dict[str, Any] = (event or {}).get("passthrough") or {}
        try:
            result = result_of(event)
        except VertexRayError as error:
            self.log.warning("The deployment failed: %s\nUndeploying the model", error)
            trigger = VertexRayUndeployTrigger(
                name=passed["endpoint"],
                deployed_model_ids=[passed["deployed_model_id"]],
                delete_endpoint=passed["endpoint_created"],
                undo=True,
                operation=passed["operation"],
                previous_split=passed["previous_split"],
                deadline=deadline_after(CLEAN_UP_SECONDS),
                passthrough={"error": error.to_dict()},
                **self._connection_arguments(),
            )
            return self._wait(context, trigger, self.deferrable, "undone")
        keep = {key: passed[key] for key in ("deployed_model_id", "endpoint_created", "adopted")}
        return {**result, **keep}

    def undone(self, context: Context, event: dict[str, Any] | None = None) -> None:
        """Raise the reason for the failed deployment, once it is undone."""
        passed: dict[str, Any] = (event or {}).get("passthrough") or {}
        try:
            result_of(event)
        except VertexRayError as error:
            self.log.error("Could not undo the deployment; it may still incur charges: %s", error)
        raise error_from_dict(passed["error"])

    def on_kill(self) -> None:
        """Undo the deployment when the task is killed while it waits in the worker."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        if self._undo is None or not self.stop_on_kill:
            return
        undo = self._undo
        # Said first: Airflow may end this process before a deployment of minutes has ended.
        self.log.warning(
            "The task was killed; undoing the deployment to endpoint %s. If this process ends before Vertex AI has "
            "ended the deployment, deployed model %s may still incur charges",
            undo.name,
            undo.arguments["deployed_model_id"],
        )
        try:
            run_sync(lambda: undo.undo(CLEAN_UP_SECONDS))
        except VertexRayError as error:
            self.log.error("Could not undo the deployment; it may still incur charges: %s", error)

    def _deployed(self, model: str, deployed_id: str) -> dict[str, Any]:
        machine: dict[str, Any] = {"machineType": self.machine_type}
        if self.accelerator_type:
            machine |= {"acceleratorType": self.accelerator_type, "acceleratorCount": self.accelerator_count}
        resources: dict[str, Any] = {
            "machineSpec": machine,
            "minReplicaCount": self.min_replica_count,
            "maxReplicaCount": self.max_replica_count or self.min_replica_count,
        }
        if self.autoscaling_targets:
            resources["autoscalingMetricSpecs"] = [
                {"metricName": _METRICS[metric], "target": target}
                for metric, target in self.autoscaling_targets.items()
            ]
        deployed = {
            "id": deployed_id,
            "model": model,
            "displayName": self.deployed_model_display_name or self.task_id,
            "dedicatedResources": resources,
        }
        return {**deployed, "serviceAccount": self.service_account} if self.service_account else deployed

    def _split(self, endpoint: dict[str, Any]) -> dict[str, int] | None:
        """Return the traffic split: this model's share, and the others' in proportion to their previous shares."""
        if self.traffic_split is not None:
            return {str(key): int(value) for key, value in self.traffic_split.items()}
        try:
            return split_with(endpoint.get("trafficSplit") or {}, self.traffic_percentage)
        except ValueError:
            raise InvalidArgumentError("traffic_percentage", self.traffic_percentage, _ONLY_MODEL) from None


class VertexRayUndeployModelOperator(ModelBaseOperator):
    """Undeploy models from an endpoint, so that they stop incurring charges, and optionally delete the endpoint.

    A model or an endpoint that does not exist is not an error. Meant as the teardown task of a DAG.

    Returns ``undeployed`` (IDs) and ``endpoint_deleted``.

    :param endpoint_id: endpoint ID or resource name. (templated)
    :param deployed_model_id: ID of the deployed model; None: all models of the endpoint. (templated)
    :param delete_endpoint: whether to delete the endpoint: ``if_created`` (if ``VertexRayDeployModelOperator`` created
        it), ``always`` or ``never``. An endpoint that still has models is kept.
    :param undeploy_timeout: seconds within which everything must be undeployed.
    :param deferrable: whether to wait in the triggerer; default: ``[operators] default_deferrable``.
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises OperationTimeoutError: the models were not undeployed within ``undeploy_timeout``.
    :raises NotAuthorisedError: the credentials lack a permission.
    """

    template_fields: Sequence[str] = ("endpoint_id", "deployed_model_id", *ModelBaseOperator.connection_fields)
    operator_extra_links = (VertexRayEndpointLink(),)

    def __init__(
        self,
        *,
        endpoint_id: str,
        deployed_model_id: str | None = None,
        delete_endpoint: str = "if_created",
        undeploy_timeout: float = 1800.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_resource("endpoints", endpoint_id, "endpoint_id")
        check_strings(deployed_model_id=deployed_model_id)
        check_choice("delete_endpoint", delete_endpoint, DELETE_ENDPOINT)
        check_duration("undeploy_timeout", undeploy_timeout, none_allowed=False)
        self.endpoint_id = endpoint_id
        self.deployed_model_id = deployed_model_id
        self.delete_endpoint = delete_endpoint
        self.undeploy_timeout = undeploy_timeout
        self.deferrable = resolve_deferrable(deferrable)

    def execute(self, context: Context) -> Any:
        """Read the endpoint, then undeploy and wait."""
        from airflow_provider_vertex_ray.core.threads import run_sync
        from airflow_provider_vertex_ray.errors import EndpointNotFoundError

        name = self._resource("endpoints", self.endpoint_id, "endpoint_id")
        self._set_place(name)
        persist_link_facts(context, **self._facts(name))
        try:
            endpoint = run_sync(lambda: self.model_hook.get_endpoint(name))
        except EndpointNotFoundError:
            self.log.info("Endpoint %s does not exist; nothing to undeploy", name)
            return {"undeployed": [], "endpoint_deleted": False}
        made = (endpoint.get("labels") or {}).get(MADE_LABEL) == MADE_HERE
        trigger = VertexRayUndeployTrigger(
            name=name,
            deployed_model_ids=[self.deployed_model_id] if self.deployed_model_id else None,
            delete_endpoint=self.delete_endpoint == "always" or (self.delete_endpoint == "if_created" and made),
            deadline=deadline_after(self.undeploy_timeout),
            **self._connection_arguments(),
        )
        return self._wait(context, trigger, self.deferrable)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the IDs of the undeployed models, and whether the endpoint was deleted."""
        return result_of(event)


_METRICS = {
    "cpu": "aiplatform.googleapis.com/prediction/online/cpu/utilization",
    "gpu": "aiplatform.googleapis.com/prediction/online/accelerator/duty_cycle",
}

_ONLY_MODEL = (
    "The shares of an endpoint's models must add up to 100, and no other model of this endpoint has traffic. Use 100, "
    "or 0 for no traffic."
)


def _check_split(split: Any) -> None:
    rule = 'Use whole percentages that add up to 100, by deployed model ID; "0" stands for this model.'
    shares = list(split.values()) if isinstance(split, dict) and "0" in split else []
    if not all(map(is_whole, shares)) or sum(shares) != 100 or min(shares) < 0:
        raise InvalidArgumentError("traffic_split", split, rule)
