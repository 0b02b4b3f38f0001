"""The executable fast-cni and the agent's socket, with each other: real processes, no kernel and no verbs."""

import asyncio
import json
import os
import signal
import stat
import struct
from pathlib import Path

import pytest

from fast.agent.cni.cni_server import CniServer
from fast.agent.cni.tombstones import Tombstones
from fast.cni import CniReply
from fast.cni.frames import decode_call
from fast.errors import InvalidConfig

PLUGIN = Path(__file__).parents[3] / "build" / "fast-cni"
CONFIG = b'{"cniVersion":"1.0.0","name":"fast","type":"fast-cni","prevResult":{"cniVersion":"0.3.1"}}'
CALL = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0"}


@pytest.fixture
def place(tmp_path):
    """Socket and state directory of this test, as the plugin is told."""
    return {"FAST_AGENT_SOCKET": str(tmp_path / "agent.sock"), "FAST_STATE_DIR": str(tmp_path / "state")}


async def start(place, command, **variables):
    environment = place | CALL | {"CNI_COMMAND": command} | variables
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(PLUGIN, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)


async def run(place, command, stdin=CONFIG, **variables):
    process = await start(place, command, **variables)
    stdout, _ = await asyncio.wait_for(process.communicate(stdin), 20)
    return process.returncode, stdout


def exists(path):
    return Path(path).exists()


class Serving:
    """A server that keeps the calls, and answers by ``answer`` (a coroutine function), or the same to each."""

    def __init__(self, place, answer=None):
        self.calls = []
        self._answer = answer or self._say
        self.server = CniServer(Path(place["FAST_AGENT_SOCKET"]), self._dispatch)

    async def _say(self, call):
        return CniReply(0, b"said\n")

    async def _dispatch(self, call):
        self.calls.append(call)
        return await self._answer(call)

    async def __aenter__(self):
        await self.server.start()
        return self

    async def __aexit__(self, *_):
        await self.server.stop(drain_seconds=0.1)


async def test_the_agent_gets_the_cni_variables_and_stdin_and_the_runtime_its_reply(place):
    async def answer(call):
        return CniReply(7, b"what the agent said\n")

    async with Serving(place, answer) as serving:
        assert await run(place, "ADD", CNI_ARGS="A=b;C=ü") == (7, b"what the agent said\n")
    (call,) = serving.calls
    assert call.env == CALL | {"CNI_COMMAND": "ADD", "CNI_ARGS": "A=b;C=ü"}
    assert call.stdin == CONFIG


async def test_many_calls_at_once_get_their_own_replies(place):
    async def echo(call):
        await asyncio.sleep(0.01)
        return CniReply(0, call.env["CNI_CONTAINERID"].encode())

    async with Serving(place, echo):
        names = [f"c{number}" for number in range(32)]
        replies = await asyncio.gather(*(run(place, "ADD", CNI_CONTAINERID=name) for name in names))
    assert replies == [(0, name.encode()) for name in names]


async def test_version_is_answered_without_the_agent_in_the_version_of_the_input(place):
    status, stdout = await run(place, "VERSION", b'{"a":{"cniVersion":"9"},"cniVersion":"0.4.0"}')
    assert (status, json.loads(stdout)["cniVersion"]) == (0, "0.4.0")


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)])
async def test_without_an_agent_the_answer_is_an_error_object_in_the_configurations_version(
    place, command, code
):
    status, stdout = await run(place, command)
    said = json.loads(stdout)
    assert (status, said["code"], said["cniVersion"]) == (1, code, "1.0.0")
    assert place["FAST_AGENT_SOCKET"] in said["details"]


async def test_del_without_an_agent_leaves_one_tombstone_however_often_it_comes(place):
    for _ in range(3):
        assert await run(place, "DEL") == (0, b"")
    tombstones = Tombstones(Path(place["FAST_STATE_DIR"]) / "tombstones")
    assert list(tombstones.waiting()) == [("c1", "eth0")]
    call = decode_call((tombstones.directory / "c1:eth0").read_bytes())
    assert (call.env, call.stdin) == (CALL | {"CNI_COMMAND": "DEL"}, CONFIG)


@pytest.mark.parametrize("container_id", ["", "../../etc/x", "a:b", ".x"])
async def test_a_tombstone_has_no_name_that_leads_elsewhere(place, container_id):
    status, stdout = await run(place, "DEL", CNI_CONTAINERID=container_id)
    assert (status, json.loads(stdout)["code"]) == (1, 4)
    assert not exists(place["FAST_STATE_DIR"])


async def test_del_fails_with_error_5_when_the_tombstone_cannot_be_written(place):
    status, stdout = await run(place, "DEL", FAST_STATE_DIR="/dev/null/x")
    assert (status, json.loads(stdout)["code"]) == (1, 5)


async def cut_off(place, answer):
    """Run an ADD against a server that answers with some bytes and closes."""

    async def connected(reader, writer):
        await reader.read(10)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(connected, place["FAST_AGENT_SOCKET"])
    async with server:
        return await run(place, "ADD")


@pytest.mark.parametrize(
    "answer", [b"", b"\0\0", struct.pack("<II", 0, 10), struct.pack("<II", 0, 10) + b"half"]
)
async def test_a_reply_that_is_cut_off_is_error_11(place, answer):
    status, stdout = await cut_off(place, answer)
    assert (status, json.loads(stdout)["code"]) == (1, 11)


async def test_a_reply_that_is_too_large_is_error_5(place):
    status, stdout = await cut_off(place, struct.pack("<II", 0, 2**31))
    assert (status, json.loads(stdout)["code"]) == (1, 5)


async def test_an_agent_that_does_not_answer_is_given_up_after_the_timeout(place):
    forever = asyncio.Event()

    async def never(call):
        await forever.wait()
        return CniReply(0)

    async with Serving(place, never):
        for command, code in (("ADD", 11), ("STATUS", 50)):
            status, stdout = await run(place, command, FAST_CNI_TIMEOUT_SECONDS="1")
            assert (status, json.loads(stdout)["code"]) == (1, code)
            assert "does not answer in time" in json.loads(stdout)["msg"]
        assert await run(place, "DEL", FAST_CNI_TIMEOUT_SECONDS="1") == (0, b"")
        forever.set()
    assert list(Tombstones(Path(place["FAST_STATE_DIR"]) / "tombstones").waiting())


async def test_a_plugin_that_is_killed_does_not_disturb_the_server(place):
    async with Serving(place) as serving:
        for _ in range(5):
            process = await start(place, "ADD")
            process.stdin.write(CONFIG[:20])
            await asyncio.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        assert await run(place, "ADD") == (0, b"said\n")
        assert len(serving.calls) == 1


async def test_bytes_that_are_no_frame_get_an_error_and_do_not_disturb_the_server(place):
    async with Serving(place):
        reader, writer = await asyncio.open_unix_connection(place["FAST_AGENT_SOCKET"])
        writer.write(b"\xff" * 8)
        assert b'"code":7' in await reader.read()
        writer.close()
        assert await run(place, "ADD") == (0, b"said\n")


async def test_only_root_may_connect(place):
    async with Serving(place):
        mode = os.stat(place["FAST_AGENT_SOCKET"]).st_mode
    assert stat.S_IMODE(mode) == 0o600


async def test_the_socket_goes_with_the_server_and_not_with_a_predecessor(place):
    socket = place["FAST_AGENT_SOCKET"]
    async with Serving(place):
        assert exists(socket)
    assert not exists(socket)


async def test_a_second_agent_is_kept_off_the_node(place):
    async with Serving(place):
        with pytest.raises(InvalidConfig, match="another fast-agent"):
            await Serving(place).server.start(wait_seconds=0)


async def test_a_stop_lets_calls_that_run_finish(place):
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slow(call):
        begun.set()
        await finish.wait()
        return CniReply(0, b"finished")

    serving = Serving(place, slow)
    await serving.server.start()
    running = asyncio.create_task(run(place, "ADD"))
    await begun.wait()
    stopping = asyncio.create_task(serving.server.stop())
    await asyncio.sleep(0)
    finish.set()
    await stopping
    assert await running == (0, b"finished")
