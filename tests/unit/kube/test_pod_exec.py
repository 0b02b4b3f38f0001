"""Running a command in a pod by the API server's exec, against a server that speaks its WebSocket protocol."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from fast.errors import Forbidden, KubeError, Unavailable
from fast.kube import ClusterConfig, KubeClient
from fast.kube.pod_exec import Finished, exec_in_pod

Handler = Callable[[web.Request], web.StreamResponse]
SUCCESS = {"status": "Success"}


def failure(code: int) -> dict[str, object]:
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[KubeClient]:
    """A client of a server that answers exec requests by the handler."""
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/exec", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with KubeClient(ClusterConfig(f"http://127.0.0.1:{port}")) as client:
            yield client
    finally:
        await runner.cleanup()


def answering(*messages: bytes) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=["v5.channel.k8s.io"])
        await socket.prepare(request)
        for message in messages:
            await socket.send_bytes(message)
        await socket.close()
        return socket

    return handle


def end(status: dict[str, object]) -> bytes:
    return b"\x03" + json.dumps(status).encode()


async def test_output_and_exit_status_are_the_commands():
    handler = answering(b"\x01a", b"\x02oops", b"\x01b", end(failure(3)))
    async with server(handler) as client:
        assert await exec_in_pod(client, "ns", "p", ["x"]) == Finished(3, b"ab", b"oops")


async def test_the_command_and_container_reach_the_server_word_by_word():
    seen = {}

    async def handle(request: web.Request) -> web.StreamResponse:
        seen["command"] = request.query.getall("command")
        seen["container"] = request.query["container"]
        seen["pod"] = request.match_info["pod"]
        return await answering(end(SUCCESS))(request)

    async with server(handle) as client:
        finished = await exec_in_pod(client, "ns", "p-1", ["ls", "-l", "a b&c"], container="agent")
    assert finished.status == 0
    assert seen == {"command": ["ls", "-l", "a b&c"], "container": "agent", "pod": "p-1"}


async def test_a_connection_that_ends_before_the_command_is_no_success():
    async with server(answering(b"\x01half")) as client:
        with pytest.raises(Unavailable, match="ended before the command"):
            await exec_in_pod(client, "ns", "p", ["x"])


async def test_a_refusal_is_the_servers_own():
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "message": "no"}, status=403)

    async with server(refuse) as client:
        with pytest.raises(Forbidden):
            await exec_in_pod(client, "ns", "p", ["x"])


@pytest.mark.parametrize(
    "last", [b"\x03not json", b"\x03[]", end({"status": "Failure", "message": "no such file"})]
)
async def test_an_end_that_is_no_exit_status_is_an_error(last):
    async with server(answering(last)) as client:
        with pytest.raises(KubeError):
            await exec_in_pod(client, "ns", "p", ["x"])
