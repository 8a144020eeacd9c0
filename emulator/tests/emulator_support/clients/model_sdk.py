"""Models and endpoints through Google's SDK, unmodified; all it knows of the emulator is its environment."""

from __future__ import annotations

import json
import os
from typing import Any

from google.api_core import exceptions
from google.cloud import aiplatform
from stages import tell

IMAGES = "us-docker.pkg.dev/vertex-ai/prediction/"


def refused(work: Any, *arguments: Any, **options: Any) -> str:
    try:
        work(*arguments, **options)
    except (exceptions.GoogleAPICallError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    aiplatform.init(project=os.environ["GOOGLE_CLOUD_PROJECT"], location="us-central1")
    instances = json.loads(os.environ["INSTANCES"])
    first = aiplatform.Model.upload(
        display_name="iris",
        artifact_uri=os.environ["SKLEARN_URI"],
        serving_container_image_uri=IMAGES + "sklearn-cpu.1-6:latest",
        labels={"run": "one"},
        version_aliases=["golden"],
        version_description="the first",
    )
    second = aiplatform.Model.upload(
        display_name="iris",
        parent_model=first.resource_name,
        is_default_version=False,
        artifact_uri=os.environ["XGBOOST_URI"],
        serving_container_image_uri=IMAGES + "xgboost-cpu.2-1:latest",
        labels={"run": "two"},
    )
    registry = first.versioning_registry
    registry.add_version_aliases(["champion"], second.version_id)
    tell(
        "upload",
        name=first.resource_name,
        versions=[[each.version_id, sorted(each.version_aliases)] for each in registry.list_versions()],
        by_alias=aiplatform.Model(f"{first.resource_name}@champion").version_id,
        by_label=[each.resource_name for each in aiplatform.Model.list(filter="labels.run=one")],
        by_another=len(aiplatform.Model.list(filter='labels.run="three"')),
        golden=registry.get_version_info("golden").version_description,
    )

    endpoint = aiplatform.Endpoint.create(display_name="flowers", endpoint_id="flowers")
    empty = refused(endpoint.predict, instances=instances)
    endpoint.deploy(first, machine_type="n1-standard-2", traffic_percentage=100, deployed_model_display_name="first")
    answer = endpoint.predict(instances=instances)
    tell(
        "predict",
        empty=empty,
        predictions=answer.predictions,
        model=answer.model_resource_name,
        version=answer.model_version_id,
        deployed=answer.deployed_model_id,
        listed=[each.id for each in endpoint.list_models()],
        raw=json.loads(
            endpoint.raw_predict(json.dumps({"instances": instances}), {"Content-Type": "application/json"}).text
        ),
        wrong=refused(endpoint.predict, instances=[[1.0, 2.0]]),
        in_use=[refused(endpoint.delete), refused(first.delete)],
    )
    endpoint.deploy(second, machine_type="n1-standard-2", traffic_percentage=100)
    other = endpoint.predict(instances=instances)
    endpoint.undeploy(answer.deployed_model_id)
    tell("second", predictions=other.predictions, version=other.model_version_id, traffic=endpoint.traffic_split)

    missing = aiplatform.Model.upload(
        display_name="missing",
        artifact_uri=os.environ["SKLEARN_URI"] + "-missing",
        serving_container_image_uri=IMAGES + "sklearn-cpu.1-6:latest",
    )
    failed = refused(endpoint.deploy, missing, machine_type="n1-standard-2")
    tell("failed", error=failed, left=[each.model for each in endpoint.list_models()])
    missing.delete()

    endpoint.undeploy_all()
    undeployed = refused(endpoint.predict, instances=instances)
    traffic = endpoint.traffic_split
    endpoint.delete()
    registry.delete_version("2")
    first.delete()
    tell(
        "delete",
        undeployed=undeployed,
        traffic=traffic,
        endpoints=len(aiplatform.Endpoint.list()),
        models=len(aiplatform.Model.list()),
    )


if __name__ == "__main__":
    main()
