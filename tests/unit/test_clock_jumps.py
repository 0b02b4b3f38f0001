"""The wall clock may jump by a day, either way: nothing is freed, lost, reused or led twice because of it."""

from __future__ import annotations

import ast
import asyncio
import json
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import fast
from fakes.nasty_server import nasty_server, status
from fakes.store import FakeCluster, FakeStore, a_pool
from fast.api import timestamps
from fast.api.ipendpoint import PodRef
from fast.api.resources import IPENDPOINTS
from fast.ipam import Attachment, ClaimRequest, NodeIdentity
from fast.kube import (
    ClusterConfig,
    Informer,
    KubeClient,
    LeaderElector,
    WorkQueue,
    credentials,
)
from fast.kube.credentials import ExecPlugin, TokenFile
from fast.kube.lease import Terms
from unit.ipam.nodes import Caller

DAY_SECONDS = 86_400.0
_WALL_CLOCK = {"time", "time_ns", "now", "utcnow", "today", "gmtime", "localtime"}
#: Who may read it: for times that people read, Events' names, the expiry that an exec plugin names by the wall clock,
#: and to tell how far the clock is off the API server's.
_READERS = {
    ("api/timestamps.py", "now_text"),
    ("api/timestamps.py", "now_micro_text"),
    ("api/timestamps.py", "seconds_since"),
    ("agent/node/installed_checks.py", "_tombstones"),
    ("agent/see/seeing.py", "__init__"),
    ("kube/event_recorder.py", "_event_of"),
    ("kube/credentials.py", "_expiry_of"),
    ("kube/transport.py", "_open"),
}


class WallClock:
    """The wall clock; jumps when told to. The monotonic clock goes on as it does."""

    def __init__(self, true_time) -> None:
        self._true_time = true_time
        self.offset_seconds = 0.0

    def time(self) -> float:
        return self._true_time() + self.offset_seconds


@pytest.fixture(params=[DAY_SECONDS, -DAY_SECONDS], ids=["forward", "back"])
def jump(request, monkeypatch):
    """Make the wall clock jump by a day, when called."""
    wall = WallClock(time.time)

    class JumpingDatetime(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.fromtimestamp(wall.time(), tz)

    monkeypatch.setattr(time, "time", wall.time)
    monkeypatch.setattr(time, "time_ns", lambda: int(wall.time() * 1e9))
    for module in (timestamps, credentials):
        monkeypatch.setattr(module, "datetime", JumpingDatetime)

    def jumping() -> None:
        wall.offset_seconds += request.param

    return jumping


def _readers_of_the_wall_clock(path: Path, tree: ast.AST):
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for call in ast.walk(function):
            match call:
                case ast.Attribute(value=ast.Name(id="time" | "datetime" | "date"), attr=name) if (
                    name in _WALL_CLOCK
                ):
                    yield path.as_posix(), function.name


@pytest.mark.parametrize("package", ["kube", "ipam", "agent", "controller", "cni", "datapath", "api"])
def test_the_wall_clock_is_read_for_people_and_for_expiries_only(package):
    root = Path(fast.__file__).parent
    found = set()
    for path in (root / package).rglob("*.py"):
        found |= set(_readers_of_the_wall_clock(path.relative_to(root), ast.parse(path.read_text())))
    assert found == {reader for reader in _READERS if reader[0].startswith(f"{package}/")}


class Leases:
    """Answers for one Lease, as an API server does."""

    def __init__(self) -> None:
        self.lease, self.version = None, 0

    def __call__(self, seen):
        if seen.method == "GET":
            return (200, self.lease) if self.lease else (404, status(404, "NotFound"))
        body = json.loads(seen.body)
        if self.lease and body["metadata"].get("resourceVersion") != str(self.version):
            return 409, status(409, "Conflict")
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.lease = body
        return 200, body


async def test_a_leader_stays_the_only_one(jump):
    terms = Terms(duration=60, renew_deadline=30, retry_period=0.05)
    led: list[str] = []

    def candidate(name):
        async def work() -> None:
            led.append(name)
            await asyncio.Event().wait()

        return LeaderElector(client, "kube-system", "fast", name, terms=terms).run(work)

    async with nasty_server() as server, KubeClient(ClusterConfig(server.url)) as client:
        server.answer = leases = Leases()
        tasks = [asyncio.create_task(candidate("a"))]
        await _until(lambda: led)
        tasks.append(asyncio.create_task(candidate("b")))
        await _until(lambda: leases.version >= 3)
        jump()
        renewed = leases.version
        await _until(lambda: leases.version >= renewed + 5)
        assert led == ["a"]
        assert "leaseTransitions" not in leases.lease["spec"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_informer_neither_lists_anew_nor_counts_a_failure(jump):
    async with nasty_server() as server, KubeClient(ClusterConfig(server.url)) as client:
        informer = Informer(client, IPENDPOINTS)
        task = asyncio.create_task(informer.run())
        await informer.wait_synced()
        await _until(lambda: server.watches)
        jump()
        server.put("c")
        await _until(lambda: "c" in informer.cache)
        assert (len(server.lists), len(server.watches), informer.failures) == (1, 1, 0)
        assert time.monotonic() - informer.last_contact < 5
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_delayed_key_of_a_work_queue_comes_when_it_should(jump):
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("soon", 0.05)
    queue.add_after("late", 3600)
    jump()
    async with asyncio.timeout(5):
        assert await queue.get() == "soon"
    assert len(queue) == 0
    queue.shut_down()


class Monotonic:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _agent():
    cluster, clock = FakeCluster(), Monotonic()
    cluster.put_pool(a_pool("small", "10.244.10.0-10.244.10.3"))
    store = FakeStore(cluster, clock=clock)
    node = NodeIdentity(name="n1", boot_id="boot-1")
    return Caller(store, node, clock=clock, rng=random.Random(1)), clock


async def _claim(ipam, number):
    pod = PodRef(namespace="default", name=f"pod-{number}", uid=f"uid-{number}")
    (record,) = await ipam.claim(Attachment(f"c{number}", "eth0", pod), ClaimRequest(pools=("small",)))
    return record.metadata.name


async def test_a_released_address_cools_for_as_long_as_it_should(jump):
    ipam, clock = _agent()
    assert await _claim(ipam, 1) == "10.244.10.0"
    await ipam.release("c1", "eth0")
    jump()
    assert await _claim(ipam, 2) == "10.244.10.1"
    clock.now += 31
    assert await _claim(ipam, 3) == "10.244.10.0"


async def test_the_agents_gc_needs_its_two_sights_thirty_seconds_apart_whatever_the_wall_clock_says(jump):
    ipam, clock = _agent()
    await _claim(ipam, 1)

    async def sandboxes():
        return set()

    assert not (await ipam.gc(sandboxes)).freed
    jump()
    clock.now += 5
    assert not (await ipam.gc(sandboxes)).freed
    clock.now += 26
    assert len((await ipam.gc(sandboxes)).freed) == 1


async def test_a_token_file_is_looked_at_again(jump, tmp_path):
    path = tmp_path / "token"
    path.write_text("one")
    tokens = TokenFile(path)
    assert (await tokens.grant()).authorization == "Bearer one"
    path.write_text("two, longer")
    jump()
    assert (await tokens.grant()).authorization == "Bearer one"  # ten seconds are not over
    tokens.refuse()
    assert (await tokens.grant()).authorization == "Bearer two, longer"


async def test_an_exec_plugins_token_lives_as_long_as_it_did_when_it_was_given(jump, tmp_path):
    calls = tmp_path / "calls"
    expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    answer = (
        '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
        f'"status":{{"token":"t","expirationTimestamp":"{expires}"}}}}'
    )
    plugin = ExecPlugin(
        command="/bin/sh",
        args=["-c", f"echo >> {calls}; echo '{answer}'"],
        environment={},
        api_version="client.authentication.k8s.io/v1",
        tls_factory=lambda **_: pytest.fail("no certificate was given"),
    )
    await plugin.grant()
    jump()
    await plugin.grant()
    assert calls.read_text().count("\n") == 1


async def _until(holds) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.01)
