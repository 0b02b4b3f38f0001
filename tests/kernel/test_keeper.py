"""The agent's keeper on a real node: what others break is repaired as it happens, counted, and pods hardly notice."""

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY

from fast.agent.node.keeper import CONDITION, DatapathKeeper
from fast.agent.readiness import Readiness
from kernel import traffic
from kernel.fastlab import attach_pods, cluster
from kernel.lab import eventually
from kernel.load import PING_INTERVAL_SECONDS, load

#: Within this, what the kernel tells of is repaired, whatever the interval of the verifications.
SOON_SECONDS = 2.5


@pytest.fixture(scope="module", params=["vxlan", "native"])
def made(request):
    with cluster(routing=request.param) as found:
        attach_pods(found, 2)
        yield found


@contextlib.contextmanager
def kept(node):
    """Run the keeper on the node as its agent does, with an interval that is far too long for a test."""

    async def keep(keeper):
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(4, initializer=node.machine._enter))
        loops.append((loop, asyncio.current_task()))
        with contextlib.suppress(asyncio.CancelledError):
            await keeper.run()

    loops = []
    keeper = DatapathKeeper(
        node.datapath, Readiness(CONDITION), verify_interval_seconds=3600.0, came_up=lambda: None
    )
    running = node.machine.submit(lambda: asyncio.run(keep(keeper)))
    eventually(keeper.up.is_set)
    time.sleep(0.2)  # it has gone to wait
    try:
        yield
    finally:
        loop, task = loops[0]
        loop.call_soon_threadsafe(task.cancel)
        running.result(10)


def repairs(kind):
    return REGISTRY.get_sample_value("fast_datapath_repairs_total", {"kind": kind}) or 0


def seconds_until(holds):
    began = time.monotonic()
    eventually(holds)
    return time.monotonic() - began


def test_a_tunnel_device_that_is_deleted_is_made_again_before_anybody_waits_for_it_and_counted(made):
    a, b, c, _ = made.pods
    node = made.nodes[0]
    streams = {
        "TCP on the node": (a, b, b.ip, 9001, 9001),
        "TCP across": (a, c, c.ip, 9002, 9002),
        "TCP of the node": (node, made.outside, made.outside_ip, 9003, 9003),
    }
    pings = {
        "on the node": (a, b.ip),
        "across": (a, c.ip),
        "IPv6 across": (a, c.ip6),
        "of the node": (node, c.ip),
    }
    before = repairs("tunnel-device")
    with kept(node), load(pings, streams) as found:
        traffic.ping(a, c.ip6)
        node.run("ip link del fast_vxlan")
        away_seconds = seconds_until(lambda: repairs("tunnel-device") > before)
        traffic.ping(a, c.ip6)
        traffic.ping(node, c.ip)
    assert away_seconds < SOON_SECONDS
    assert not found.failures
    assert found.lost["on the node"] == 0
    assert not any(found.lost[name] for name in streams)
    if node.config.routing == "native":
        assert found.lost["across"] == 0, "natively routed, nothing between pods needs the device"
    most = (away_seconds + 0.5) / PING_INTERVAL_SECONDS
    assert all(lost <= most for lost in found.lost.values()), found.lost


def test_a_flushed_ruleset_is_put_back_before_anybody_waits_for_it_and_counted(made):
    a, b, c, _ = made.pods
    node = made.nodes[0]
    streams = {"TCP on the node": (a, b, b.ip, 9001, 9001), "TCP across": (a, c, c.ip, 9002, 9002)}
    pings = {"on the node": (a, b.ip), "across": (a, c.ip6), "outside": (a, made.outside_ip)}
    before = repairs("firewall")
    with kept(node), load(pings, streams) as found:
        traffic.ping(a, made.outside_ip)
        node.run("nft flush ruleset")
        away_seconds = seconds_until(lambda: repairs("firewall") > before)
        traffic.ping(a, made.outside_ip)
    assert away_seconds < SOON_SECONDS
    outside = found.lost.pop("outside")
    found.assert_unharmed()
    assert outside <= (away_seconds + 0.5) / PING_INTERVAL_SECONDS, "unmasqueraded only until then"
