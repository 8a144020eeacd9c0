"""The dashboard proxy: who passes, and that everything passes whole."""

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
from vertex_ray_emulator.surfaces.dashboard_proxy import Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture
async def world(tmp_path) -> AsyncIterator[World]:
    async with proxied(tmp_path) as made:
        yield made


async def test_passes_method_path_body_and_headers_on_but_no_credentials(world):
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
    assert world.last_call() == ("POST /echo/a/b", "etl", True, 200)


async def test_finds_the_cluster_by_host_header_too(world):
    root = world.url.removesuffix(f"/{HOST}")
    for host in (HOST, f"{HOST}:443"):
        async with world.session.get(f"{root}/echo/x", headers={"Host": host}) as response:
            assert (await response.json())["path"] == "/echo/x"
    assert world.last_call() == ("GET /echo/x", "etl", True, 200)


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
async def test_the_bare_address_is_the_root(world, path):
    assert (await world.get(path))[0] == 404  # the little server has none: it is its own 404
    assert world.last_call() == ("GET /", "etl", True, 404)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer nonsense", "Basic eDp5"])
async def test_without_a_valid_token_401(world, authorization):
    status, text = await world.get("/echo/x", headers={"Authorization": authorization})
    assert status == 401
    assert '"status": "UNAUTHENTICATED"' in text
    assert world.last_call() == ("GET /echo/x", "etl", False, 401)


async def test_a_revoked_token_is_401_at_once(world):
    assert (await world.get("/echo/x"))[0] == 200
    world.tokens.revoke_all()
    assert (await world.get("/echo/x"))[0] == 401


async def test_unknown_addresses_are_404_but_not_for_strangers(world):
    root = world.url.removesuffix(HOST)
    unknown = "ffff-dot-us-central1.aiplatform-training.googleusercontent.com"
    async with world.session.get(root + unknown + "/api/version") as response:
        assert response.status == 404
    assert world.last_call() == ("GET /api/version", unknown, True, 404)
    async with world.session.get(root + "elsewhere") as response:
        assert response.status == 404
    async with world.session.get(root + unknown, headers={"Authorization": "no"}) as response:
        assert response.status == 401


async def test_503_until_warm_and_faults_are_not_used_up_by_it(world):
    world.targets[HOST] = Target("etl", world.upstream.port, warm_at=time.time() + 60)
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
    assert world.last_call() == ("GET /ws", "etl", True, 502)


async def test_uploads_are_passed_on_while_they_come(world):
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
async def test_downloads_are_passed_on_while_they_come(world, query):
    async with world.session.get(f"{world.url}/download{query}") as response:
        assert await response.content.readexactly(5) == b"first"
        world.upstream.go_on.set()
        assert await response.content.read() == b"later"


async def test_half_an_answer_is_not_taken_for_the_whole(world):
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
async def test_redirects_are_not_followed_and_stay_behind_the_proxy(world, to, expected):
    async with world.session.get(f"{world.url}/moved", params={"to": to}, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, expected)


async def test_websockets_pass_frames_protocol_and_close_codes_both_ways(world):
    async with world.session.ws_connect(f"{world.url}/ws", protocols=["other", "ray"]) as tail:
        assert tail.protocol == "ray"
        await tail.send_str("hello")
        assert (await tail.receive_str()) == "hello None"  # no Authorization behind the proxy
        await tail.send_bytes(b"\x00\x01")
        assert (await tail.receive_bytes()) == b"\x00\x01"
        assert world.last_call() == ("GET /ws", "etl", True, 101)
        await tail.send_str("close 4001")
        assert (await tail.receive()).type is aiohttp.WSMsgType.CLOSE
        assert tail.close_code == 4001
    async with world.session.ws_connect(f"{world.url}/ws") as tail:
        await tail.close(code=4002)
    await until(lambda: world.upstream.closed_with == 4002, "the code to arrive")


async def test_a_websocket_whose_server_died_is_cut_and_not_closed(world):
    async with world.session.ws_connect(f"{world.url}/ws") as tail:
        await tail.send_str("die")
        assert (await tail.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert tail.close_code == 1006


async def test_a_refused_websocket_has_the_servers_own_status(world):
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await world.session.ws_connect(f"{world.url}/no-ws")
    assert error.value.status == 404
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await world.session.ws_connect(f"{world.url}/ws", headers={"Authorization": "no"})
    assert error.value.status == 401
