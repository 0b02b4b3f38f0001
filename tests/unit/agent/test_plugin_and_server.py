"""The executable fast-cni and the agent's socket, with each other: real processes, no kernel and no verbs."""

import asyncio
import json
import os
import random
import resource
import shutil
import signal
import socket
import stat
import struct
import time
from pathlib import Path

import pytest

from fast.agent.cni.cni_server import CniServer
from fast.agent.cni.tombstones import Tombstones
from fast.cni import CniCall, CniReply
from fast.cni.frames import decode_call, decode_reply, encode_call
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


async def test_status_waits_for_an_agent_that_hangs_for_five_seconds_and_no_longer(place):
    forever, began = asyncio.Event(), time.monotonic()

    async def never(call):
        await forever.wait()
        return CniReply(0)

    async with Serving(place, never):
        status, stdout = await run(place, "STATUS", FAST_CNI_TIMEOUT_SECONDS="60")
        forever.set()
    assert (status, json.loads(stdout)["code"]) == (1, 50)
    assert 4 < time.monotonic() - began < 15


@pytest.mark.parametrize("command", ["ADD", "CHECK"])
async def test_the_sandboxs_namespace_is_opened_by_the_plugin_and_passed_by_descriptor(
    place, tmp_path, command
):
    namespace = tmp_path / "namespace"
    namespace.touch()
    seen, open_before = [], None

    async def look(call):
        seen.append(os.stat(call.netns_path).st_ino)
        return CniReply(0)

    async with Serving(place, look):
        open_before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            assert (await run(place, command, CNI_NETNS=str(namespace)))[0] == 0
        assert len(os.listdir("/proc/self/fd")) == open_before
    assert seen == [namespace.stat().st_ino] * 3


@pytest.mark.parametrize(
    ("command", "path"), [("ADD", "/nowhere"), ("DEL", "/dev/null"), ("STATUS", "/dev/null")]
)
async def test_without_a_namespace_to_open_the_call_comes_without_a_descriptor(place, command, path):
    async with Serving(place) as serving:
        assert (await run(place, command, CNI_NETNS=path))[0] == 0
    assert [call.netns_path for call in serving.calls] == [""]


async def test_descriptors_that_nobody_asked_for_are_closed(place):
    async with Serving(place):
        before = len(os.listdir("/proc/self/fd"))
        for frame in (b"\xff" * 8, b"\0" * 3, struct.pack("<II", 0, 0)):
            with socket.socket(socket.AF_UNIX) as channel:
                channel.connect(place["FAST_AGENT_SOCKET"])
                socket.send_fds(channel, [frame], [0, 0, 0])
                channel.shutdown(socket.SHUT_WR)
                await asyncio.to_thread(channel.recv, 1000)
        assert len(os.listdir("/proc/self/fd")) == before


async def test_whatever_is_sent_gets_a_reply_or_a_close_and_leaks_no_descriptor(place):
    """Seeded, so that a failure can be repeated: frames that lie about their sizes, garbage, descriptors, hang-ups."""
    chosen = random.Random(20261128)

    def send():
        frame = encode_call(CniCall(CALL | {"CNI_COMMAND": "ADD"}, CONFIG))
        if chosen.random() < 0.4:
            sizes = [
                chosen.choice([0, 1, len(frame), 65536, 65537, 2**20, 2**31, 2**32 - 1]) for _ in range(2)
            ]
            frame = struct.pack("<II", *sizes) + frame[8:]
        if chosen.random() < 0.4:
            frame = bytes(chosen.randrange(256) if chosen.random() < 0.1 else byte for byte in frame)
        frame = frame[: chosen.choice([0, 1, 7, 8, 9, len(frame)])]
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(5)
            channel.connect(place["FAST_AGENT_SOCKET"])
            try:
                if frame:
                    socket.send_fds(channel, [frame], [0] * chosen.randrange(4))
                if chosen.random() < 0.2:
                    return None
                channel.shutdown(socket.SHUT_WR)
                received = b""
                while chunk := channel.recv(65536):
                    received += chunk
            except ConnectionError:
                return None
        return received or None

    async with Serving(place) as serving:
        before = len(os.listdir("/proc/self/fd"))
        replies = [await asyncio.to_thread(send) for _ in range(400)]
        whole = [decode_reply(reply) for reply in replies if reply is not None]
        assert len(whole) > 50
        assert {reply.exit_code for reply in whole} == {0, 1}
        assert all(json.loads(reply.stdout)["code"] == 7 for reply in whole if reply.exit_code)
        async with asyncio.timeout(5):  # the last one may have hung up a moment ago
            while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110 -- descriptors have no event
                await asyncio.sleep(0.01)
        assert await run(place, "ADD") == (0, b"said\n")
        assert serving.calls


class Keeping(Serving):
    """A server that looks after its socket, and what it said about it."""

    def __init__(self, place):
        super().__init__(place)
        self.said, self.restored = [], 0

    def _restored(self):
        self.restored += 1

    async def __aenter__(self):
        await super().__aenter__()
        keep = self.server.keep(self.said.append, self._restored, interval_seconds=0.01)
        self._task = asyncio.create_task(keep)
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await super().__aexit__()

    async def until(self, holds):
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 -- files have no event
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("wiped", ["directory", "socket", "lock", "replaced"])
async def test_a_socket_that_somebody_removed_is_made_again_and_serves(place, tmp_path, wiped):
    directory = tmp_path / "run"
    place["FAST_AGENT_SOCKET"] = str(directory / "agent.sock")
    async with Keeping(place) as serving:
        if wiped == "directory":
            shutil.rmtree(directory)
        elif wiped == "replaced":
            (directory / "agent.sock").unlink()
            (directory / "agent.sock").touch()
        else:
            (directory / f"agent.{'sock' if wiped == 'socket' else 'lock'}").unlink()
        await serving.until(lambda: serving.restored)
        assert await run(place, "ADD") == (0, b"said\n")
        with pytest.raises(InvalidConfig, match="another fast-agent"):
            await Serving(place).server.start(wait_seconds=0)
        assert set(serving.said) == {""}
    assert not exists(place["FAST_AGENT_SOCKET"])


async def test_a_call_that_runs_while_the_socket_is_wiped_gets_its_reply(place, tmp_path):
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slow(call):
        begun.set()
        await finish.wait()
        return CniReply(0, b"finished")

    async with Keeping(place) as serving:
        serving._answer = slow
        running = asyncio.create_task(run(place, "ADD"))
        await begun.wait()
        os.unlink(place["FAST_AGENT_SOCKET"])
        await serving.until(lambda: serving.restored)
        finish.set()
        assert await running == (0, b"finished")


async def test_a_socket_that_cannot_be_made_again_is_told_with_a_remedy_until_it_can(place, tmp_path):
    directory = tmp_path / "run"
    place["FAST_AGENT_SOCKET"] = str(directory / "agent.sock")
    async with Keeping(place) as serving:
        shutil.rmtree(directory)
        directory.touch()  # a file: no directory can be made there
        await serving.until(lambda: any("restart the agent" in text for text in serving.said))
        directory.unlink()
        await serving.until(lambda: serving.restored)
        assert await run(place, "ADD") == (0, b"said\n")


async def test_an_agent_that_took_the_socket_meanwhile_keeps_it_and_the_first_says_so(place):
    async with Keeping(place) as first:
        os.unlink(Path(place["FAST_AGENT_SOCKET"]).with_suffix(".lock"))
        os.unlink(place["FAST_AGENT_SOCKET"])
        async with Serving(place) as second:
            await first.until(lambda: any("another fast-agent" in text for text in first.said))
            assert await run(place, "ADD") == (0, b"said\n")
            assert len(second.calls) == 1


async def test_out_of_descriptors_calls_wait_and_are_served_afterwards(place):
    async with Serving(place):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        process = await start(place, "ADD")
        lowest_free = os.dup(0)
        os.close(lowest_free)
        pipe = process.stdin.transport.get_extra_info("pipe").fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(lowest_free, pipe), hard))
        try:
            process.stdin.write(CONFIG)
            process.stdin.close()
            await asyncio.sleep(0.5)
            assert process.returncode is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await process.stdout.read() == b"said\n"
        await process.wait()


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
    path = place["FAST_AGENT_SOCKET"]
    async with Serving(place):
        assert exists(path)
    assert not exists(path)


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
