"""The API as gRPC over TLS, called under Google's host names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, cluster_body, until
from emulator_support.serving import model_body
from google.longrunning import operations_pb2
from google.protobuf import json_format
from vertex_ray_emulator.wire.protos import APIS, Api, GetProjectRequest, Project, state_name

PARENT = "projects/demo-project/locations/us-central1"
NAME = f"{PARENT}/persistentResources/c1"
Call = Callable[..., Any]


@pytest.fixture
def channel(emulator: EmulatorProcess) -> Iterator[grpc.Channel]:
    authority = Path(emulator.env["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"]).read_bytes()
    options = [
        ("grpc.ssl_target_name_override", "us-central1-aiplatform.googleapis.com"),
        ("grpc.enable_http_proxy", 0),
    ]
    credentials = grpc.ssl_channel_credentials(authority)
    with grpc.secure_channel(f"127.0.0.1:{emulator.ports['grpc']}", credentials, options) as channel:
        yield channel


@pytest.fixture
def call(emulator: EmulatorProcess, channel: grpc.Channel) -> Call:
    def invoke(path: str, request: Any, answer: Any, *, token: str | None = "") -> Any:
        method = channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        metadata = []
        if token is not None:
            metadata.append(("authorization", f"Bearer {token or emulator.token()}"))
        return method(request, metadata=metadata, timeout=PATIENCE)

    return invoke


def rpc(api: Api, name: str) -> str:
    return f"/google.cloud.aiplatform.{api.version}.PersistentResourceService/{name}PersistentResource"


def operation_done(call: Call, name: str) -> Any:
    request = operations_pb2.WaitOperationRequest(name=name)
    request.timeout.seconds = int(PATIENCE)
    return call("/google.longrunning.Operations/WaitOperation", request, operations_pb2.Operation)


def create(call: Call, api: Api, workers: int = 1) -> Any:
    request = api.CreateRequest(parent=PARENT, persistent_resource_id="c1")
    json_format.ParseDict(cluster_body(workers), request.persistent_resource)
    return call(rpc(api, "Create"), request, operations_pb2.Operation)


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_cluster_from_create_to_delete(call: Call, version: str) -> None:
    api = APIS[version]
    operation = operation_done(call, create(call, api).name)
    created = api.PersistentResource()
    assert operation.done
    assert operation.response.Unpack(created)
    resource = call(rpc(api, "Get"), api.GetRequest(name=NAME), api.PersistentResource)
    assert resource == created
    assert state_name(resource) == "RUNNING"
    page = call(rpc(api, "List") + "s", api.ListRequest(parent=PARENT), api.ListResponse)
    assert list(page.persistent_resources) == [resource]

    update = api.UpdateRequest(persistent_resource=resource)
    update.update_mask.paths.append("resource_pools.replica_count")
    update.persistent_resource.resource_pools[1].replica_count = 3
    operation = operation_done(call, call(rpc(api, "Update"), update, operations_pb2.Operation).name)
    resized = api.PersistentResource()
    assert operation.response.Unpack(resized)
    assert resized.resource_pools[1].replica_count == 3

    with pytest.raises(grpc.RpcError) as caught:
        call(rpc(api, "Reboot"), api.GetRequest(name=NAME), operations_pb2.Operation)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    operation = call(rpc(api, "Delete"), api.DeleteRequest(name=NAME), operations_pb2.Operation)
    assert operation_done(call, operation.name).HasField("response")
    with pytest.raises(grpc.RpcError) as caught:
        call(rpc(api, "Get"), api.GetRequest(name=NAME), api.PersistentResource)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_rest_and_grpc_show_the_same_cluster(emulator: EmulatorProcess, call: Call) -> None:
    api = APIS["v1beta1"]
    emulator.create("c1", cluster_body(2))
    resource = call(rpc(api, "Get"), api.GetRequest(name=NAME), api.PersistentResource)
    assert json_format.MessageToDict(resource) == emulator.api("GET", "persistentResources/c1")[1]


def test_tokens_and_faults_apply_to_grpc(emulator: EmulatorProcess, call: Call) -> None:
    api = APIS["v1"]
    request, path = api.GetRequest(name=NAME), rpc(api, "Get")
    for token in (None, "wrong"):
        with pytest.raises(grpc.RpcError) as caught:
            call(path, request, api.PersistentResource, token=token)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    for fault, code in [
        ({"scope": "auth", "status": 403}, grpc.StatusCode.PERMISSION_DENIED),
        ({"scope": "control_plane", "code": "ABORTED"}, grpc.StatusCode.ABORTED),
        ({"scope": "control_plane", "action": "reset"}, grpc.StatusCode.UNAVAILABLE),
        ({"scope": "control_plane", "action": "status", "status": 503}, grpc.StatusCode.UNAVAILABLE),
    ]:
        emulator.admin("POST", "faults", fault)
        with pytest.raises(grpc.RpcError) as caught:
            call(path, request, api.PersistentResource)
        assert caught.value.code() is code
    logged = [(c["surface"], c["authorised"], c["status"]) for c in emulator.calls("GetPersistentResource")]
    assert logged == [
        ("grpc", False, 401),
        ("grpc", False, 401),
        ("grpc", False, 403),
        ("grpc", True, 409),
        ("grpc", True, 0),
        ("grpc", True, 503),
    ]


def test_create_whose_answer_is_lost_is_carried_out(emulator: EmulatorProcess, call: Call) -> None:
    emulator.admin("POST", "faults", {"scope": "control_plane", "method": "Create*", "action": "drop_response"})
    with pytest.raises(grpc.RpcError) as caught:
        create(call, APIS["v1"])
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    until(lambda: emulator.api("GET", "persistentResources/c1")[1].get("state") == "RUNNING")


def test_operations_service(emulator: EmulatorProcess, call: Call) -> None:
    name = create(call, APIS["v1"]).name
    base = "/google.longrunning.Operations/"
    operation_done(call, name)
    request = operations_pb2.ListOperationsRequest(name=f"{PARENT}/persistentResources/c1")
    page = call(base + "ListOperations", request, operations_pb2.ListOperationsResponse)
    assert page.operations[0].name == name
    empty = json_format.Parse("{}", operations_pb2.Operation())
    call(base + "CancelOperation", operations_pb2.CancelOperationRequest(name=name), type(empty))
    call(base + "DeleteOperation", operations_pb2.DeleteOperationRequest(name=name), type(empty))
    with pytest.raises(grpc.RpcError) as caught:
        call(base + "GetOperation", operations_pb2.GetOperationRequest(name=name), operations_pb2.Operation)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_projects_service(emulator: EmulatorProcess, call: Call) -> None:
    path = "/google.cloud.resourcemanager.v3.Projects/GetProject"
    for name in ("projects/demo-project", "projects/123456789012"):
        project = call(path, GetProjectRequest(name=name), Project)
        assert (project.name, project.project_id) == ("projects/123456789012", "demo-project")
    with pytest.raises(grpc.RpcError) as caught:
        call(path, GetProjectRequest(name="projects/other"), Project)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_models_and_endpoints_over_grpc(emulator: EmulatorProcess, call: Call, version: str) -> None:
    api = APIS[version]
    services = f"/google.cloud.aiplatform.{version}."
    request = api.message("UploadModelRequest")(parent=PARENT, model_id="m")
    json_format.ParseDict(model_body(), request.model)
    operation = call(f"{services}ModelService/UploadModel", request, operations_pb2.Operation)
    operation = operation_done(call, operation.name)
    metadata, uploaded = api.message("UploadModelOperationMetadata")(), api.message("UploadModelResponse")()
    assert operation.metadata.Unpack(metadata)
    assert operation.response.Unpack(uploaded)
    get = api.message("GetModelRequest")(name=f"{PARENT}/models/m@{uploaded.model_version_id}")
    model = call(f"{services}ModelService/GetModel", get, api.message("Model"))
    assert model.name == uploaded.model
    page = api.message("ListModelsResponse")
    listed = call(f"{services}ModelService/ListModels", api.message("ListModelsRequest")(parent=PARENT), page)
    assert list(listed.models) == [model]

    new = api.message("CreateEndpointRequest")(parent=PARENT, endpoint_id="e")
    new.endpoint.display_name = "x"
    call(f"{services}EndpointService/CreateEndpoint", new, operations_pb2.Operation)
    predict = api.message("PredictRequest")(endpoint=f"{PARENT}/endpoints/e")
    predict.instances.add().string_value = "x"
    path, answer = f"{services}PredictionService/Predict", api.message("PredictResponse")
    with pytest.raises(grpc.RpcError, match="doesn't have traffic_split"):
        call(path, predict, answer)
    predict.instances.add().string_value = "x" * 1_600_000
    with pytest.raises(grpc.RpcError, match="Request payload size exceeds the limit: 1572864 bytes"):
        call(path, predict, answer)
    seen = [(each["surface"], each["resource"]) for each in emulator.calls("CreateEndpoint")]
    assert seen == [("grpc", f"{PARENT.replace('demo-project', '123456789012')}/endpoints/e")]
