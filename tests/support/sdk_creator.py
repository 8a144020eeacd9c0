"""Runs ``vertex_ray.create_ray_cluster`` on request, in a process of its own: one JSON object a line in and out.

In:  ``{"location", "cluster_id", "fields", "capture", "body"}``; ``fields`` are the function's arguments as plain JSON.
Out: ``{"error"}``, or ``{"sdk": the request's PersistentResource, "ours": "body" read as one, "equal", "parent"}``.

With ``capture`` a gRPC server in this process takes the request. All that is patched then is where the
client connects to and the look-up of the project's number; the SDK's logic and its bytes on the wire are its own.
Without it, requests go where the environment says, to an emulator, and only ``{"name"}`` comes back.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock


class SdkCreator:
    """This file in a process of its own, asked to create clusters one after the other.

    :param log: where its other output goes.
    :param env: its environment, which says where requests go.
    """

    def __init__(self, *, log: Path, env: dict[str, str]) -> None:
        self._log = log
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=env,
            )
        assert self._answer() == {"ready": True}

    def create(self, location: str, cluster_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Have a cluster created where the environment says; see the module's docstring for the answer."""
        return self._ask(location=location, cluster_id=cluster_id, fields=fields, capture=False, body=None)

    def compare(
        self, location: str, cluster_id: str, fields: dict[str, Any], body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Take the SDK's request and compare it with a body of ours; see the module's docstring for the answer."""
        return self._ask(location=location, cluster_id=cluster_id, fields=fields, capture=True, body=body)

    def _ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=240)
        self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the SDK's process died: {self._log.read_text()[-3000:]}"
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Answer until standard input ends."""
    answers = sys.stdout
    # The SDK prints its progress.
    with contextlib.redirect_stdout(sys.stderr):
        _serve(answers)


def _serve(answers: Any) -> None:
    from google.cloud import aiplatform

    # The server stops when nobody holds it any more.
    received, captured, _server = _capture()
    project = "demo-project"
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        aiplatform.init(project=project, location=question["location"])
        capture = question["capture"]
        try:
            with captured() if capture else contextlib.nullcontext():
                name = _create(question["cluster_id"], question["fields"])
        except Exception as error:
            answer: dict[str, Any] = {"error": f"{type(error).__name__}: {error}"}
        else:
            answer = _compare(received.pop(), question["body"]) if capture else {"name": name}
        print(json.dumps(answer), file=answers, flush=True)


def _create(cluster_id: str, fields: dict[str, Any]) -> str:
    from google.cloud.aiplatform import vertex_ray
    from google.cloud.aiplatform.vertex_ray.util import resources

    def machine(value: dict[str, Any]) -> Any:
        value = dict(value)
        if value.get("autoscaling_spec") is not None:
            value["autoscaling_spec"] = resources.AutoscalingSpec(**value["autoscaling_spec"])
        return resources.Resources(**value)

    arguments = dict(fields)
    if "head_node_type" in arguments:
        arguments["head_node_type"] = machine(arguments["head_node_type"])
    if "worker_node_types" in arguments:
        arguments["worker_node_types"] = [machine(worker) for worker in arguments["worker_node_types"]]
    if "custom_images" in arguments:
        arguments["custom_images"] = resources.NodeImages(**arguments["custom_images"])
    if "psc_interface_config" in arguments:
        arguments["psc_interface_config"] = resources.PscIConfig(**arguments["psc_interface_config"])
    if "nfs_mounts" in arguments:
        arguments["nfs_mounts"] = [resources.NfsMount(**mount) for mount in arguments["nfs_mounts"]]
    return str(vertex_ray.create_ray_cluster(cluster_name=cluster_id, **arguments))


def _capture() -> tuple[list[Any], Callable[[], AbstractContextManager[None]], Any]:
    """Return the list of requests that were taken, a context in which they are taken, and the server."""
    import grpc
    from google.cloud.aiplatform.utils import resource_manager_utils
    from google.cloud.aiplatform.vertex_ray.util import _gapic_utils
    from google.cloud.aiplatform_v1beta1.services.persistent_resource_service import (
        PersistentResourceServiceClient,
        transports,
    )
    from google.cloud.aiplatform_v1beta1.types import PersistentResource, persistent_resource_service
    from google.longrunning import operations_pb2

    received: list[Any] = []

    def create(request: Any, _context: Any) -> Any:
        received.append(request)
        return operations_pb2.Operation(name="operations/1")

    def get(request: Any, _context: Any) -> Any:
        return PersistentResource(name=request.name, state=PersistentResource.State.RUNNING)

    def handler(function: Any, request: Any, answer: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(function, request.deserialize, answer)

    server = grpc.server(futures.ThreadPoolExecutor(2))
    methods = {
        "CreatePersistentResource": handler(
            create,
            persistent_resource_service.CreatePersistentResourceRequest,
            operations_pb2.Operation.SerializeToString,
        ),
        "GetPersistentResource": handler(
            get, persistent_resource_service.GetPersistentResourceRequest, PersistentResource.serialize
        ),
    }
    service = "google.cloud.aiplatform.v1beta1.PersistentResourceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    transport = transports.PersistentResourceServiceGrpcTransport(channel=grpc.insecure_channel(f"127.0.0.1:{port}"))
    client = PersistentResourceServiceClient(transport=transport)

    @contextlib.contextmanager
    def captured() -> Iterator[None]:
        with (
            mock.patch.object(_gapic_utils, "create_persistent_resource_client", return_value=client),
            mock.patch.object(resource_manager_utils, "get_project_number", return_value="123456789012"),
        ):
            yield

    return received, captured, server


def _compare(request: Any, body: dict[str, Any] | None) -> dict[str, Any]:
    from google.cloud.aiplatform_v1beta1.types import PersistentResource
    from google.protobuf import json_format

    sdk = PersistentResource.pb(request.persistent_resource)
    ours = json_format.ParseDict(body or {}, PersistentResource.pb(PersistentResource()))
    return {
        "sdk": json_format.MessageToDict(sdk),
        "ours": json_format.MessageToDict(ours),
        "equal": bool(sdk == ours),
        "parent": request.parent,
        "cluster_id": request.persistent_resource_id,
    }


if __name__ == "__main__":
    main()
