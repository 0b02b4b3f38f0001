"""kubectl exec's server side: real child processes behind a real WebSocket, as the protocol's channels have it."""

import asyncio
import json
import os
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, WSMsgType, web

from fast_playground.apiserver.api import ApiError
from fast_playground.apiserver.exec import PROTOCOLS, PodExec

_ENTER = (
    "sh",
    "-c",
    'ns=$1 pod=$2 container=$3; export ns pod container; shift 4; exec "$@"',
    "enter",
)  # what follows the first four arguments


class _Pods:
    """The one verb that exec needs."""

    async def get(self, _gvr, name, namespace=None):
        if name == "gone":
            raise ApiError(404, "NotFound", 'pods "gone" not found')
        node = {} if name == "unbound" else {"nodeName": "n1"}
        return {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"containers": [{"name": "c"}]} | node,
        }


@asynccontextmanager
async def _serving(command=_ENTER):
    """Serve exec on loopback; gives a function that opens a WebSocket for a command."""
    exec_ = PodExec(_Pods(), command)

    @web.middleware
    async def errors(request, handler):
        try:
            return await handler(request)
        except ApiError as error:
            return web.json_response(error.to_status(), status=error.code)

    app = web.Application(middlewares=[errors])

    async def serve(request):
        return await exec_.handle(request, "ns", request.match_info["pod"])

    app.router.add_get("/{pod}", serve)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    async with ClientSession(url) as session:

        def connect(*argv, pod="p", flags=("stdin", "stdout", "stderr"), container=None, protocols=PROTOCOLS):
            query = [("command", part) for part in argv] + [(flag, "true") for flag in flags]
            query += [("container", container)] if container else []
            return session.ws_connect(f"/{pod}", params=query, protocols=protocols)

        connect.session = session
        yield connect
    await runner.cleanup()


async def _collect(socket) -> dict[int, bytes]:
    """Read until the server closes; what came on each channel."""
    seen: dict[int, bytes] = {}
    async with asyncio.timeout(20):
        async for message in socket:
            assert message.type is WSMsgType.BINARY
            seen[message.data[0]] = seen.get(message.data[0], b"") + message.data[1:]
    return seen


async def _run(*argv, **options) -> dict[int, bytes]:
    async with _serving() as connect, connect(*argv, **options) as socket:
        return await _collect(socket)


async def _is_gone(pid: int) -> bool:
    """Wait for a process to end."""
    descriptor = os.pidfd_open(pid)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), 10)
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
    return True


async def test_output_and_errors_come_on_their_own_channels():
    seen = await _run("sh", "-c", "echo out; echo err >&2")
    assert (seen[1], seen[2]) == (b"out\n", b"err\n")
    assert json.loads(seen[3]) == {"metadata": {}, "status": "Success"}


async def test_the_command_that_enters_pods_is_told_which():
    seen = await _run("sh", "-c", "echo $ns $pod $container")
    assert seen[1] == b"ns p c\n"


@pytest.mark.parametrize(("script", "code"), [("exit 3", "3"), ("kill -9 $$", "137")])
async def test_the_exit_status_comes_as_a_cause(script, code):
    status = json.loads((await _run("sh", "-c", script))[3])
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": code}]


async def test_input_reaches_the_command_and_its_end_ends_it():
    async with _serving() as connect, connect("cat") as socket:
        assert socket.protocol == "v5.channel.k8s.io"
        await socket.send_bytes(b"\x00hello ")
        await socket.send_bytes(b"\x00world")
        await socket.send_bytes(b"\xff\x00")
        seen = await _collect(socket)
    assert seen[1] == b"hello world"
    assert json.loads(seen[3])["status"] == "Success"


async def test_version_4_is_spoken_too():
    async with _serving() as connect, connect("echo", "x", protocols=("v4.channel.k8s.io",)) as socket:
        assert socket.protocol == "v4.channel.k8s.io"
        assert (await _collect(socket))[1] == b"x\n"


async def test_without_input_the_command_reads_an_empty_file():
    assert (await _run("cat", flags=("stdout",)))[3] == b'{"metadata":{},"status":"Success"}'


async def test_much_output_comes_whole():
    seen = await _run("sh", "-c", "head -c 5000000 /dev/zero")
    assert len(seen[1]) == 5_000_000


async def test_a_terminal_is_one_of_its_own_and_has_the_size_that_was_sent():
    async with _serving() as connect, connect("sh", flags=("stdin", "stdout", "tty")) as socket:
        await socket.send_bytes(b'\x04{"Width":91,"Height":37}')
        await socket.send_bytes(
            b"\x00stty size; tty; ps -o tpgid= -p $$ | grep -q $$ || echo foreground; exit 5\n"
        )
        seen = await _collect(socket)
    assert b"37 91" in seen[1]
    assert b"/dev/pts/" in seen[1]
    assert json.loads(seen[3])["details"]["causes"][0]["message"] == "5"


async def test_control_c_on_a_terminal_interrupts_the_command():
    script = ("sh", "-c", "echo ready; exec sleep 60")
    async with _serving() as connect, connect(*script, flags=("stdin", "stdout", "tty")) as socket:
        while b"ready" not in (await socket.receive(10)).data:
            pass
        await socket.send_bytes(b"\x00\x03")
        seen = await _collect(socket)
    assert json.loads(seen[3])["details"]["causes"][0]["message"] == "130"


@pytest.mark.parametrize("flags", [("stdin", "stdout"), ("stdin", "stdout", "tty")])
async def test_a_client_that_goes_away_takes_the_command_with_it(flags):
    async with _serving() as connect:
        async with connect("sh", "-c", "echo $$; sleep 300", flags=flags) as socket:
            pid = b""
            while not pid.endswith(b"\n"):
                pid += (await socket.receive(10)).data[1:]
            gone = asyncio.create_task(_is_gone(int(pid)))
            await asyncio.sleep(0)  # it has the process in hand before the socket closes
        assert await gone


async def test_what_a_command_leaves_in_the_background_does_not_hold_the_answer():
    seen = await _run("sh", "-c", "sleep 30 & echo $!")
    assert json.loads(seen[3])["status"] == "Success"
    os.kill(int(seen[1]), 9)


async def test_a_way_into_pods_that_cannot_be_started_is_an_error_status():
    async with _serving(("/nonexistent",)) as connect, connect("true") as socket:
        status = json.loads((await _collect(socket))[3])
    assert status["reason"] == "InternalError"
    assert "No such file" in status["message"]


@pytest.mark.parametrize(
    "data", [b"\x04nonsense", b'\x04{"Width":-1,"Height":1}', b"\x09x", b"\xff", b"\xff\x07", b""]
)
async def test_nonsense_from_the_client_changes_nothing(data):
    async with _serving() as connect, connect("cat", flags=("stdin", "stdout", "tty")) as socket:
        await socket.send_bytes(data)
        await socket.send_bytes(b"\x00fine\n\x04")
        seen = await _collect(socket)
    assert b"fine" in seen[1]
    assert json.loads(seen[3])["status"] == "Success"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/gone?command=true", 404),
        ("/unbound?command=true", 400),
        ("/p", 400),
        ("/p?command=true&container=other", 400),
        ("/p?command=true", 400),  # no upgrade to a WebSocket asked for
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_before_anything_starts(path, code):
    async with _serving() as connect, connect.session.get(path) as answer:
        assert answer.status == code


async def test_without_a_way_into_pods_exec_is_not_implemented():
    async with _serving(()) as connect, connect.session.get("/p?command=true") as answer:
        assert answer.status == 501
