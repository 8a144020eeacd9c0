"""The dashboard proxy: access, and forwarding of requests, answers and websockets."""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from emulator_support.data_plane import until
from emulator_support.proxy_world import CUT, HOST, World, proxied
from vertex_ray_emulator.surfaces.dashboard_target import Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture
async def world(tmp_path) -> AsyncIterator[World]:
    async with proxied(tmp_path) as made:
        yield made


async def test_forwards_method_path_body_and_headers_but_no_credentials(world):
    async with world.session.post(
        f"{world.url}/echo/a%2Fb?c=d%20e&f=",
        data=b"body",
        headers={"X-Mine": "1", "Cookie": "a=b", "Connection": "X-Hop", "X-Hop": "1", "Accept-Encoding": "br"},
    ) as response:
        assert response.status == 200
        seen = await response.json()
        assert response.headers["X-Kept"] == "yes"
        assert "X-Private" not in response.headers
        assert "Set-Cookie" not in response.headers
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/echo/a%2Fb?c=d%20e&f=", "body")
    headers = seen["headers"]
    assert headers["x-mine"] == "1"
    assert headers["content-length"] == "4"
    assert headers["accept-encoding"] == "br"
    assert headers["host"] == f"127.0.0.1:{world.upstream.port}"
    assert not {"authorization", "cookie", "x-hop", "transfer-encoding"} & set(headers)
    assert world.last_request() == ("POST /echo/a/b", "etl", True, 200)


async def test_cluster_is_found_by_host_header(world):
    root = world.url.removesuffix(f"/{HOST}")
    for host in (HOST, f"{HOST}:443"):
        async with world.session.get(f"{root}/echo/x", headers={"Host": host}) as response:
            assert (await response.json())["path"] == "/echo/x"
    assert world.last_request() == ("GET /echo/x", "etl", True, 200)


async def test_works_over_tls_in_both_forms(world):
    context = ssl.create_default_context(cafile=world.certificates.authority)
    async with world.session.get(f"{world.tls_url}/{HOST}/echo/x", ssl=context) as response:
        assert (await response.json())["path"] == "/echo/x"
    port = int(world.tls_url.rsplit(":", 1)[1])
    connector = aiohttp.TCPConnector(resolver=_ToLoopback(), ssl=context)
    headers = {"Authorization": world.authorization}
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.get(f"https://{HOST}:{port}/echo/x") as response,
    ):
        assert (await response.json())["path"] == "/echo/x"


class _ToLoopback(aiohttp.abc.AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[Any]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("path", ["", "/", "?x=1"])
async def test_address_without_path_is_the_root(world, path):
    assert (await world.get(path))[0] == 404  # the little server has none: it is its own 404
    assert world.last_request() == ("GET /", "etl", True, 404)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer nonsense", "Basic eDp5"])
async def test_401_without_a_valid_token(world, authorization):
    status, text = await world.get("/echo/x", headers={"Authorization": authorization})
    assert status == 401
    assert '"status": "UNAUTHENTICATED"' in text
    assert world.last_request() == ("GET /echo/x", "etl", False, 401)


async def test_401_after_a_token_is_revoked(world):
    assert (await world.get("/echo/x"))[0] == 200
    world.tokens.revoke_all()
    assert (await world.get("/echo/x"))[0] == 401


async def test_unknown_addresses_are_404_only_with_a_valid_token(world):
    root = world.url.removesuffix(HOST)
    unknown = "ffff-dot-us-central1.aiplatform-training.googleusercontent.com"
    async with world.session.get(root + unknown + "/api/version") as response:
        assert response.status == 404
    assert world.last_request() == ("GET /api/version", unknown, True, 404)
    async with world.session.get(root + "elsewhere") as response:
        assert response.status == 404
    async with world.session.get(root + unknown, headers={"Authorization": "no"}) as response:
        assert response.status == 401


async def test_503_until_warm_does_not_use_up_faults(world):
    world.targets[HOST] = Target("etl", world.upstream.port, warm_at=time.time() + 3600)
    world.fault(status=418)
    assert (await world.get("/echo/x"))[0] == 503
    assert (await world.get("/echo/x", headers={"Authorization": ""}))[0] == 401
    world.targets[HOST] = Target("etl", world.upstream.port, warm_at=time.time() - 1)
    assert (await world.get("/echo/x"))[0] == 418
    assert (await world.get("/echo/x"))[0] == 200


async def test_502_when_ray_does_not_listen(world):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        world.targets[HOST] = Target("etl", taken.getsockname()[1])
        assert (await world.get("/echo/x"))[0] == 502
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await world.session.ws_connect(f"{world.url}/ws")
        assert error.value.status == 502
    assert world.last_request() == ("GET /ws", "etl", True, 502)


async def test_uploads_are_streamed(world):
    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 1_000_000
        await until(lambda: world.upstream.bytes_in == 1_000_000, "the first part to arrive")
        yield b"y" * 500_000

    async with world.session.put(f"{world.url}/upload", data=body()) as response:
        assert response.status == 200
    assert world.upstream.bytes_in == 1_500_000
    async with world.session.put(f"{world.url}/upload", data=b"z" * 3_000_000) as response:
        assert await response.text() == "3000000"  # the length is passed on, too


@pytest.mark.parametrize("query", ["", "?sized"])
async def test_downloads_are_streamed(world, query):
    async with world.session.get(f"{world.url}/download{query}") as response:
        assert await response.content.readexactly(5) == b"first"
        world.upstream.go_on.set()
        assert await response.content.read() == b"later"


async def test_incomplete_answer_of_ray_is_incomplete_for_the_client(world):
    with pytest.raises(CUT):
        await world.get("/broken")


async def test_head_requests_have_no_body(world):
    async with world.session.head(f"{world.url}/echo/x") as response:
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 0
        assert await response.read() == b""


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("/index.html", f"/{HOST}/index.html"),
        ("SELF/index.html", f"/{HOST}/index.html"),
        ("https://example.org/", "https://example.org/"),
        ("//example.org/", "//example.org/"),
        ("index.html", "index.html"),
    ],
)
async def test_redirects_are_rewritten_to_the_proxy_and_not_followed(world, to, expected):
    async with world.session.get(f"{world.url}/moved", params={"to": to}, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, expected)


async def test_websocket_frames_protocol_and_close_codes_are_forwarded_both_ways(world):
    async with world.session.ws_connect(f"{world.url}/ws", protocols=["other", "ray"]) as tail:
        assert tail.protocol == "ray"
        await tail.send_str("hello")
        assert (await tail.receive_str()) == "hello None"  # no Authorization behind the proxy
        await tail.send_bytes(b"\x00\x01")
        assert (await tail.receive_bytes()) == b"\x00\x01"
        assert world.last_request() == ("GET /ws", "etl", True, 101)
        await tail.send_str("close 4001")
        assert (await tail.receive()).type is aiohttp.WSMsgType.CLOSE
        assert tail.close_code == 4001
    async with world.session.ws_connect(f"{world.url}/ws") as tail:
        await tail.close(code=4002)
    await until(lambda: world.upstream.closed_with == 4002, "the code to arrive")


async def test_websocket_is_cut_without_close_frame_when_its_server_dies(world):
    async with world.session.ws_connect(f"{world.url}/ws") as tail:
        await tail.send_str("die")
        assert (await tail.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert tail.close_code == 1006


async def test_rejected_websocket_has_the_status_of_the_server(world):
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await world.session.ws_connect(f"{world.url}/no-ws")
    assert error.value.status == 404
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await world.session.ws_connect(f"{world.url}/ws", headers={"Authorization": "no"})
    assert error.value.status == 401
