"""The Google provider's operators for models and endpoints, as a DAG for the real service would use them."""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.google.cloud.operators.vertex_ai.endpoint_service import (
    CreateEndpointOperator,
    DeleteEndpointOperator,
    DeployModelOperator,
    GetEndpointOperator,
    ListEndpointsOperator,
    UndeployModelOperator,
    UpdateEndpointOperator,
)
from airflow.providers.google.cloud.operators.vertex_ai.model_service import (
    AddVersionAliasesOnModelOperator,
    DeleteModelOperator,
    DeleteModelVersionOperator,
    GetModelOperator,
    ListModelsOperator,
    ListModelVersionsOperator,
    SetDefaultVersionOnModelOperator,
    UploadModelOperator,
)
from running import run
from stages import tell

COMMON = {"project_id": os.environ["GOOGLE_CLOUD_PROJECT"], "region": "europe-west4"}


def do(kind: Any, name: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    return run(kind(task_id=name, **COMMON, **options))


def main() -> None:
    model = {
        "display_name": "from-provider",
        "artifact_uri": os.environ["ARTIFACT_URI"],
        "container_spec": {"image_uri": "europe-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.2-1:latest"},
        "labels": {"made": "by-airflow"},
    }
    uploaded, pushed = do(UploadModelOperator, "upload", model=model)
    model_id = pushed["model_id"]
    do(UploadModelOperator, "again", model=model, parent_model=model_id)
    do(SetDefaultVersionOnModelOperator, "default", model_id=f"{model_id}@2")
    do(AddVersionAliasesOnModelOperator, "alias", model_id=f"{model_id}@1", version_aliases=["old"])
    versions, _ = do(ListModelVersionsOperator, "versions", model_id=model_id)
    found, _ = do(GetModelOperator, "get", model_id=model_id)
    listed, _ = do(ListModelsOperator, "list", filter='labels.made="by-airflow" AND display_name="from-provider"')
    tell(
        "models",
        versions={each["version_id"]: sorted(each["version_aliases"]) for each in versions},
        default=found["version_id"],
        listed=[each["name"] for each in listed],
        name=uploaded["model"],
    )

    created, pushed = do(CreateEndpointOperator, "create", endpoint={"display_name": "served"}, endpoint_id="served")
    endpoint = {"endpoint_id": pushed["endpoint_id"]}
    deployed = {
        "model": uploaded["model"],
        "display_name": "x",
        "id": "4711",
        "dedicated_resources": {"machine_spec": {"machine_type": "n1-standard-4"}, "min_replica_count": 1},
    }
    _, pushed = do(DeployModelOperator, "deploy", deployed_model=deployed, traffic_split={"0": 100}, **endpoint)
    do(
        UpdateEndpointOperator,
        "update",
        endpoint={"display_name": "renamed"},
        update_mask={"paths": ["display_name"]},
        **endpoint,
    )
    served, _ = do(GetEndpointOperator, "look", **endpoint)
    all_of_them, _ = do(ListEndpointsOperator, "look_at_all", filter='display_name="renamed"')
    tell(
        "endpoint",
        name=created["name"],
        deployed=pushed["deployed_model_id"],
        traffic=served["traffic_split"],
        version=served["deployed_models"][0]["model_version_id"],
        listed=[each["name"] for each in all_of_them],
    )

    do(UndeployModelOperator, "undeploy", deployed_model_id="4711", **endpoint)
    do(DeleteEndpointOperator, "delete", **endpoint)
    do(DeleteEndpointOperator, "delete_again", **endpoint)
    do(DeleteModelVersionOperator, "delete_version", model_id=f"{model_id}@1")
    do(DeleteModelOperator, "delete_model", model_id=model_id)
    left, _ = do(ListModelsOperator, "list_again")
    tell("delete", models=len(left))


if __name__ == "__main__":
    main()
