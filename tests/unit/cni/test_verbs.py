"""The verbs' order of steps and what is undone when one fails; the kernel and the API server are fakes here."""

import asyncio
import errno
import json
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import Mock

import pytest

from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec
from fast.api.meta import ObjectMeta
from fast.api.resources import IPENDPOINTS
from fast.cni import CniCall, UnmetConditions, Verbs
from fast.cni.environment import MAX_CONTAINER_ID_LENGTH
from fast.datapath.pod.identity import Endpoint, macs_of
from fast.errors import AgentUnavailable, InvalidConfig, NetlinkError, PoolExhausted, Unavailable
from fast.ipam import AttachmentLocks
from fast.kube import ClusterConfig, KubeClient
from fast.kube.credentials import ExecPlugin, TokenFile

KEY = ("c1", "eth0")
ENV = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
CONFIG = {"cniVersion": "1.1.0", "name": "fast", "type": "fast-cni"}


def record(address):
    spec = IpEndpointSpec(pool="default-ips", container_id="c1", interface="eth0")
    return IpEndpoint(metadata=ObjectMeta(name=address), spec=spec)


@dataclass
class World:
    """Every port of the verbs at once, which notes the order in which it is called.

    Attributes:
        failing: What raises, by the name of the step.
    """

    steps: list[str] = field(default_factory=list)
    failing: dict[str, Exception] = field(default_factory=dict)
    records: tuple[IpEndpoint, ...] = ()
    waiting: dict = field(default_factory=dict)
    reason: UnmetConditions | None = None
    collected: tuple | None = None
    attaching_now: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self):
        self.go_on.set()

    def step(self, name):
        self.steps.append(name)
        if name in self.failing:
            raise self.failing[name]

    def attaching(self, *_):
        return nullcontext()

    async def claim(self, attachment):
        self.step("claim")
        self.records = (record("10.244.0.7"),)
        return self.records

    async def release(self, *_):
        self.step("release")
        released, self.records = self.records, ()
        return released

    async def unclaim(self, *_):
        self.step("unclaim")
        self.records = ()

    def held(self, *_):
        return self.records

    def attach(self, spec):
        self.step("attach")
        self.attaching_now.set()
        assert self.go_on.wait(10)
        host, pod = macs_of(*KEY)
        return Endpoint(spec.container_id, spec.ifname, spec.addresses, 7, "fast1", host, pod, 1450)

    def detach(self, *_):
        self.step("detach")
        return True

    def check(self, spec):
        self.step("check")

    async def collect(self, network, valid):
        self.collected = (network, valid)

    def leave(self, key, call):
        self.step("leave")
        self.waiting[key] = call

    def waits(self, key):
        if "waits" in self.failing:
            raise self.failing["waits"]
        return key in self.waiting

    def remove(self, key):
        if "remove" in self.failing:
            raise self.failing["remove"]
        self.waiting.pop(key, None)

    def unmet(self):
        return self.reason


@pytest.fixture
def world():
    return World()


@pytest.fixture
def verbs(world):
    return Verbs(
        addresses=world,
        datapath=world,
        collector=world,
        tombstones=world,
        readiness=world,
        locks=AttachmentLocks(),
    )


@pytest.fixture
def call(verbs):
    async def call(command, **config):
        env = ENV | {"CNI_COMMAND": command}
        reply = await verbs.dispatch(CniCall(env, json.dumps(CONFIG | config).encode()))
        return reply.exit_code, json.loads(reply.stdout or b"null")

    return call


async def test_add_claims_before_it_wires(world, call):
    status, result = await call("ADD")
    assert (status, world.steps) == (0, ["claim", "attach"])
    assert result["ips"][0]["address"] == "10.244.0.7/32"


async def test_add_takes_its_claim_back_when_wiring_fails(world, call):
    world.failing["attach"] = NetlinkError("refused")
    status, error = await call("ADD")
    assert (status, error["code"], world.steps) == (1, 121, ["claim", "attach", "unclaim"])


async def test_add_keeps_what_an_earlier_add_of_the_attachment_claimed_when_wiring_fails(world, call):
    world.records = (record("10.244.0.7"),)
    world.failing["attach"] = NetlinkError("refused")
    await call("ADD")
    assert world.steps == ["claim", "attach"]


async def cancelled_while_wiring(world, call):
    """An ADD that is cancelled while its thread works; gives its task, the thread goes on when the world says so."""
    world.go_on.clear()
    add = asyncio.create_task(call("ADD"))
    await asyncio.to_thread(world.attaching_now.wait, 10)
    add.cancel()
    await asyncio.sleep(0.01)
    return add


async def test_an_add_that_is_cancelled_is_undone_only_when_its_thread_has_ended(world, call):
    add = await cancelled_while_wiring(world, call)
    assert (add.done(), world.steps) == (False, ["claim", "attach"])
    world.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await add
    assert world.steps == ["claim", "attach", "detach", "unclaim"]


async def test_a_cancelled_add_keeps_its_address_where_the_interface_cannot_be_taken_down(world, call):
    add = await cancelled_while_wiring(world, call)
    world.failing["detach"] = NetlinkError("refused")
    world.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await add
    assert world.records


async def test_a_cancelled_add_leaves_what_an_earlier_one_wired(world, call):
    world.records = (record("10.244.0.7"),)
    add = await cancelled_while_wiring(world, call)
    world.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await add
    assert world.steps == ["claim", "attach"]


async def test_add_wires_nothing_when_there_is_no_address(world, call):
    world.failing["claim"] = PoolExhausted("full")
    assert (await call("ADD"))[1]["code"] == 103
    assert world.steps == ["claim"]


async def test_add_carries_out_a_del_of_the_same_attachment_that_waits_on_disk_first(world, call):
    world.waiting[KEY] = CniCall({})
    await call("ADD")
    assert world.steps == ["detach", "release", "claim", "attach"]
    assert not world.waiting


async def test_del_unwires_before_it_releases(world, call):
    assert await call("DEL") == (0, None)
    assert world.steps == ["detach", "release"]


async def test_del_releases_nothing_when_the_kernel_refuses(world, call):
    world.failing["detach"] = NetlinkError("refused")
    assert (await call("DEL"))[0] == 1
    assert world.steps == ["detach"]


@pytest.mark.parametrize(
    ("step", "error"), [("release", Unavailable("away")), ("detach", AgentUnavailable("not up yet"))]
)
async def test_del_succeeds_and_leaves_a_tombstone_when_it_cannot_be_carried_through(
    world, call, step, error
):
    world.failing[step] = error
    assert await call("DEL") == (0, None)
    assert list(world.waiting) == [KEY]


@pytest.mark.parametrize(
    "credentials",
    [
        TokenFile(Path("/dev/null")),
        ExecPlugin("false", (), {}, "client.authentication.k8s.io/v1", tls_factory=None),
    ],
    ids=["truncated token file", "failing exec plugin"],
)
async def test_del_leaves_a_tombstone_while_there_are_no_credentials_for_the_api_server(
    world, call, monkeypatch, credentials
):
    async with KubeClient(ClusterConfig("http://127.0.0.1:9", credentials)) as client:

        async def release(*_):
            await client.delete(IPENDPOINTS, "10.244.0.7")

        monkeypatch.setattr(world, "release", release)
        assert await call("DEL") == (0, None)
    assert list(world.waiting) == [KEY]


async def test_del_fails_with_error_5_when_even_the_tombstone_cannot_be_written(world, call):
    world.failing |= {"release": Unavailable("away"), "leave": OSError("disk full")}
    status, error = await call("DEL")
    assert (status, error["code"]) == (1, 5)
    assert "disk full" in error["details"]


async def test_a_del_that_waits_is_carried_out_once(world, verbs):
    world.waiting[KEY] = CniCall({})
    await verbs.carry_out_tombstone(KEY)
    assert (world.steps, world.waiting) == (["detach", "release"], {})


async def test_a_del_that_an_add_has_carried_out_meanwhile_does_not_take_down_what_that_add_made(
    world, verbs, call
):
    world.waiting[KEY] = CniCall({})
    assert (await call("ADD"))[0] == 0
    del world.steps[:]
    await verbs.carry_out_tombstone(KEY)
    assert world.steps == []


@pytest.mark.parametrize(("command", "step"), [("ADD", "waits"), ("ADD", "remove")])
async def test_a_disk_that_refuses_tombstones_is_error_5(world, call, command, step):
    world.waiting[KEY] = CniCall({})
    world.failing[step] = OSError(errno.EROFS, "Read-only file system")
    status, error = await call(command)
    assert (status, error["code"]) == (1, 5)
    assert "Read-only file system" in error["msg"]


async def test_del_forgets_the_tombstone_of_an_earlier_one(world, call):
    world.waiting[KEY] = CniCall({})
    await call("DEL")
    assert not world.waiting


async def test_check_compares_the_previous_result_with_what_is_reserved(world, call):
    _, result = await call("ADD")
    assert await call("CHECK", prevResult=result) == (0, None)
    world.records = (record("10.244.0.8"),)
    status, error = await call("CHECK", prevResult=result)
    assert (status, error["code"]) == (1, 130)
    assert "10.244.0.7" in error["msg"]
    assert "10.244.0.8" in error["msg"]


@pytest.mark.parametrize(
    ("unmet", "code"), [(UnmetConditions("why"), 50), (UnmetConditions("why", limited_connectivity=True), 51)]
)
async def test_status_tells_what_stands_in_the_way(world, call, unmet, code):
    world.reason = unmet
    status, error = await call("STATUS")
    assert (status, error["code"], error["msg"]) == (1, code, "why")


@pytest.mark.parametrize("command", ["ADD", "CHECK", "GC"])
async def test_a_node_that_is_not_ready_answers_try_again_later(world, call, command):
    world.reason = UnmetConditions("the API server is away")
    more = {"prevResult": {}, "cni.dev/valid-attachments": []}
    status, error = await call(command, **more)
    assert (status, error["code"], world.steps) == (1, 11, [])
    assert "the API server is away" in error["msg"]


async def test_add_is_tried_where_what_stands_in_the_way_may_pass(world, call):
    world.reason = UnmetConditions("the API server was slow", allows_add=True)
    assert (await call("ADD"))[0] == 0
    assert (await call("STATUS"))[0] == 1


async def test_gc_hands_on_what_the_runtime_lists(world, call):
    await call("GC", **{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})
    assert world.collected == ("fast", {KEY})


async def test_what_nobody_foresaw_is_an_error_object(world, call):
    world.failing["claim"] = ZeroDivisionError("oops")
    status, error = await call("ADD")
    assert (status, error["code"]) == (1, 199)


async def test_a_del_that_was_carried_out_succeeds_though_its_tombstone_cannot_be_removed(world, call):
    world.waiting[KEY] = CniCall({})
    world.failing["remove"] = OSError(errno.EROFS, "Read-only file system")
    assert await call("DEL") == (0, None)
    assert world.steps == ["detach", "release"]


async def test_the_disk_is_never_asked_in_the_event_loop(world, call):
    """A disk that hangs must not keep other calls waiting."""
    loop_thread, threads = threading.get_ident(), []
    for name in ("waits", "remove", "leave"):
        original = getattr(world, name)

        def noting(*args, original=original):
            threads.append(threading.get_ident())
            return original(*args)

        setattr(world, name, noting)
    await call("ADD")
    await call("DEL")
    world.failing["release"] = Unavailable("away")
    await call("DEL")
    assert len(threads) >= 3
    assert loop_thread not in threads


@pytest.mark.parametrize(
    ("netns", "passed", "opened"),
    [
        ("/run/netns/c1", "/proc/self/fd/9", "/proc/self/fd/9"),
        ("/proc/77/ns/net", "/proc/self/fd/9", "/proc/self/fd/9"),
        ("/run/netns/c1", "", "/run/netns/c1"),
    ],
)
async def test_the_namespace_is_opened_by_its_descriptor_and_told_by_its_path(
    world, verbs, netns, passed, opened
):
    specs, original = [], world.attach
    world.attach = lambda spec: specs.append(spec) or original(spec)
    env = ENV | {"CNI_COMMAND": "ADD", "CNI_NETNS": netns}
    reply = await verbs.dispatch(CniCall(env, json.dumps(CONFIG).encode(), passed))
    assert [spec.netns_path for spec in specs] == [opened]
    assert json.loads(reply.stdout)["interfaces"][1]["sandbox"] == netns


async def test_a_path_below_proc_without_a_descriptor_is_never_opened_as_it_may_be_another_process_here(
    world, verbs
):
    env = ENV | {"CNI_COMMAND": "ADD", "CNI_NETNS": "/proc/77/ns/net"}
    reply = await verbs.dispatch(CniCall(env, json.dumps(CONFIG).encode()))
    assert json.loads(reply.stdout)["code"] == 3
    assert world.steps == ["claim", "unclaim"]


async def test_what_cannot_be_an_endpoint_gives_its_addresses_back(world, call, monkeypatch):
    monkeypatch.setattr("fast.cni.verbs.EndpointSpec", Mock(side_effect=InvalidConfig("too long")))
    status, error = await call("ADD")
    assert (status, error["msg"], world.steps) == (1, "too long", ["claim", "unclaim"])


@pytest.mark.parametrize("length", [MAX_CONTAINER_ID_LENGTH, MAX_CONTAINER_ID_LENGTH + 1])
async def test_every_container_id_that_is_accepted_can_be_an_endpoint_of_two_families(world, verbs, length):
    addresses = ("255.255.255.255", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")
    env = ENV | {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c" * length, "CNI_IFNAME": "fifteen-bytes-x"}

    async def claim(_attachment):
        return tuple(map(record, ("255.255.255.255", "2001-0db8-ffff-ffff-ffff-ffff-ffff-ffff")))

    world.claim = claim
    bandwidth = {"runtimeConfig": {"bandwidth": {"ingressRate": 1}}}
    reply = await verbs.dispatch(CniCall(env, json.dumps(CONFIG | bandwidth).encode()))
    answer = json.loads(reply.stdout)
    if length > MAX_CONTAINER_ID_LENGTH:
        assert (answer["code"], world.steps) == (4, [])
    else:
        assert [ip["address"].partition("/")[0] for ip in answer["ips"]] == list(addresses)
