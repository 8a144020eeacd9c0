"""The Ray Client proxy in front of a small gRPC server in place of Ray (test_sdk.py tests it with real Ray)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio
from emulator_support.data_plane import until
from emulator_support.process import PATIENCE
from vertex_ray_emulator.faults import Fault, Faults
from vertex_ray_emulator.request_log import RequestLog
from vertex_ray_emulator.surfaces import pki
from vertex_ray_emulator.surfaces.ray_client_proxy import RayClientProxy
from vertex_ray_emulator.surfaces.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DATAPATH = "/ray.rpc.RayletDataStreamer/Datapath"
INIT = "/ray.rpc.RayletDriver/Init"


class Ray(grpc.GenericRpcHandler):
    """Echoes streams, answers ``Init`` with the metadata it got, fails ``Fail``, hangs in ``Wait``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting = 0

    def service(self, details: Any) -> Any:
        method = details.method.rsplit("/", 1)[1]
        if method == "Datapath":
            return grpc.stream_stream_rpc_method_handler(self.datapath)
        return grpc.unary_unary_rpc_method_handler(getattr(self, method.lower()))

    async def datapath(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("greeting", self.name),))
        async for request in requests:
            yield request
        context.set_trailing_metadata((("farewell", self.name),))

    async def init(self, request: bytes, context: Any) -> bytes:
        return repr((self.name, request, sorted(dict(context.invocation_metadata())))).encode()

    async def fail(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.ABORTED, "no such client")
        return b""

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.waiting += 1
        try:
            await asyncio.sleep(600)
        finally:
            self.waiting -= 1
        return b""


class World:
    def __init__(self, certificates: pki.Pki) -> None:
        self.tokens, self.request_log, self.faults = Tokens(), RequestLog(), Faults()
        self.proxy = RayClientProxy(
            self.tokens,
            self.request_log,
            self.faults,
            certificates.key.read_bytes(),
            certificates.certificate.read_bytes(),
        )
        self.credentials = grpc.ssl_channel_credentials(certificates.authority.read_bytes())
        self.metadata = (("authorization", f"Bearer {self.tokens.mint()[0]}"), ("client_id", "c1"))
        self.rays: dict[str, Ray] = {}
        self.ports: dict[str, int] = {}
        self.closing: list[Any] = []

    async def add(self, key: str) -> None:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        self.rays[key] = Ray(key)
        server.add_generic_rpc_handlers([self.rays[key]])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self.closing.append(server)
        self.ports[key] = await self.proxy.add(key, port, resource=f"cluster-{key}")

    def channel(self, key: str) -> Any:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        return grpc.aio.secure_channel(f"localhost:{self.ports[key]}", self.credentials, options=options)

    async def unary(self, key: str, method: str, request: bytes = b"", metadata: Any = None, **options: Any) -> bytes:
        async with self.channel(key) as channel:
            return await channel.unary_unary(method)(
                request, metadata=self.metadata if metadata is None else metadata, **options
            )

    def last_call(self) -> tuple[str, str, bool, int]:
        call = self.request_log.listing(surface="ray_client")[-1]
        return call["method"], call["resource"], call["authorised"], call["status"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return pki.ensure(tmp_path_factory.mktemp("pki"))


@pytest_asyncio.fixture
async def world(certificates, monkeypatch) -> AsyncIterator[World]:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = World(certificates)
    await made.add("a")
    yield made
    await made.proxy.close()
    for server in made.closing:
        await server.stop(0)


async def test_calls_reach_the_cluster_of_the_port_without_the_token(world):
    await world.add("b")
    for key in ("a", "b"):
        answer = await world.unary(key, INIT, b"hello")
        assert answer.startswith(repr((key, b"hello"))[:-1].encode())
        assert b"client_id" in answer
        assert b"authorization" not in answer
        assert world.last_call() == ("RayletDriver/Init", f"cluster-{key}", True, 200)


async def test_messages_are_streamed_both_ways_with_metadata(world):
    async with world.channel("a") as channel:
        call = channel.stream_stream(DATAPATH)(metadata=world.metadata)
        for request in (b"one", b"two"):
            await call.write(request)
            assert await call.read() == request
        assert dict(await call.initial_metadata())["greeting"] == "a"
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF
        assert dict(await call.trailing_metadata())["farewell"] == "a"
        assert await call.code() is grpc.StatusCode.OK


async def test_messages_may_be_large(world):
    large = b"x" * 20_000_000
    async with world.channel("a") as channel:
        call = channel.stream_stream(DATAPATH)(metadata=world.metadata)
        await call.write(large)
        assert await call.read() == large


@pytest.mark.parametrize("authorization", [None, "Bearer nonsense"])
async def test_unauthenticated_without_a_valid_token(world, authorization):
    metadata = [("authorization", authorization)] if authorization else []
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await world.unary("a", INIT, metadata=metadata)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert world.last_call() == ("RayletDriver/Init", "cluster-a", False, 401)


async def test_auth_fault_fails_a_call_with_its_code(world):
    world.faults.add(Fault("auth", status=403, code="PERMISSION_DENIED", message="not you"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await world.unary("a", INIT)
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.PERMISSION_DENIED, "not you")
    assert world.last_call() == ("RayletDriver/Init", "cluster-a", False, 403)
    await world.unary("a", INIT)


async def test_errors_of_ray_are_forwarded(world):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await world.unary("a", "/ray.rpc.RayletDriver/Fail")
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.ABORTED, "no such client")
    assert world.last_call()[3] == 409


async def test_other_services_are_unimplemented(world):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await world.unary("a", "/grpc.health.v1.Health/Check")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_call_to_ray_is_cancelled_when_the_client_disconnects(world):
    waiting = asyncio.create_task(world.unary("a", "/ray.rpc.RayletDriver/Wait"))
    await until(lambda: world.rays["a"].waiting == 1, "the call to arrive")
    waiting.cancel()
    await until(lambda: world.rays["a"].waiting == 0, "the call to end")
    await until(world.request_log.listing, "the log")
    assert world.last_call() == ("RayletDriver/Wait", "cluster-a", True, 499)


async def test_unavailable_when_ray_is_dead(world):
    await world.closing.pop().stop(0)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await world.unary("a", INIT, timeout=PATIENCE)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert world.last_call() == ("RayletDriver/Init", "cluster-a", True, 503)


async def test_removing_a_cluster_closes_its_port_and_aborts_its_calls(world):
    await world.add("b")
    waiting = asyncio.create_task(world.unary("a", "/ray.rpc.RayletDriver/Wait"))
    await until(lambda: world.rays["a"].waiting == 1, "the call to arrive")
    await world.proxy.remove("a")
    with pytest.raises(grpc.aio.AioRpcError):
        await waiting
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", world.ports["a"])
    await world.unary("b", INIT)
    await world.proxy.remove("a")
