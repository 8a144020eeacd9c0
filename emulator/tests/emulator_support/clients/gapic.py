"""Google's generated clients, v1 and v1beta1, over gRPC and over REST."""

from __future__ import annotations

import importlib
import os
from typing import Any

from google.api_core import exceptions
from google.auth import default
from stages import tell

PROJECT = os.environ["GOOGLE_CLOUD_PROJECT"]
PARENT = f"projects/{PROJECT}/locations/us-central1"
PATIENCE = 240.0
IMAGE = "us-docker.pkg.dev/vertex-ai/training/ray-cpu.2-47.py311:latest"


def resource() -> dict[str, Any]:
    pools = [
        {"id": name, "replica_count": 1, "machine_spec": {"machine_type": "n1-standard-8"}}
        for name in ("head-node", "worker-pool1")
    ]
    images = {"head-node": IMAGE, "worker-pool1": IMAGE}
    return {"resource_pools": pools, "resource_runtime_spec": {"ray_spec": {"resource_pool_images": images}}}


def clear_epoch(client: Any, cluster_id: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    created = client.create_persistent_resource(
        parent=PARENT, persistent_resource=resource(), persistent_resource_id=cluster_id
    ).result(timeout=PATIENCE)
    seen["created"] = created.state.name
    seen["kind"] = type(created).__module__.split(".")[2]
    seen["listed"] = [each.name for each in client.list_persistent_resources(parent=PARENT)] == [created.name]
    created.resource_pools[1].replica_count = 2
    mask = {"paths": ["resource_pools.replica_count"]}
    updated = client.update_persistent_resource(persistent_resource=created, update_mask=mask)
    seen["updated"] = [pool.replica_count for pool in updated.result(timeout=PATIENCE).resource_pools]
    client.delete_persistent_resource(name=created.name).result(timeout=PATIENCE)
    try:
        client.get_persistent_resource(name=created.name)
    except exceptions.NotFound as error:
        seen["gone"] = error.message
    return seen


def main() -> None:
    credentials, project = default()
    tell("credentials", project=project, kind=type(credentials).__module__)
    for version in ("v1", "v1beta1"):
        service = importlib.import_module(f"google.cloud.aiplatform_{version}.services.persistent_resource_service")
        transports = importlib.import_module(service.__name__ + ".transports")
        options = {"api_endpoint": "us-central1-aiplatform.googleapis.com"}
        client = service.PersistentResourceServiceClient(client_options=options)
        tell(f"{version} grpc", **clear_epoch(client, f"grpc-{version}"))
        transport = transports.PersistentResourceServiceRestTransport(
            host=os.environ["VERTEX_RAY_EMULATOR_HOST"], credentials=credentials, url_scheme="http"
        )
        client = service.PersistentResourceServiceClient(transport=transport)
        tell(f"{version} rest", **clear_epoch(client, f"rest-{version}"))


if __name__ == "__main__":
    main()
