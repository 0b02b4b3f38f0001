"""Fixtures: a machine with devices, the programs loaded for each routing, and their maps filled again for each test."""

import pytest

from fast.datapath.bpf import Config, EventSwitch, Routing
from kernel.bpf.node import (
    NODE,
    NODE6,
    TUNNEL_PORT,
    V4,
    V6,
    VNI,
    Family,
    LoadedNode,
    make_devices,
    open_fast_path,
)
from kernel.bpf.overlay import Tunnel, compiled
from kernel.lab import Machine


@pytest.fixture(scope="module")
def machine():
    made = Machine("bpf", workers=4)
    yield made
    made.close()


@pytest.fixture(scope="module")
def devices(machine):
    made = make_devices(machine)
    open_fast_path(machine)
    return made


def _node(machine, devices, **more):
    config = Config(node_ip=NODE, node_ip6=NODE6, tunnel_port=TUNNEL_PORT, vni=VNI, **more)
    return LoadedNode(machine, devices, config)


@pytest.fixture(scope="module")
def loaded_vxlan(machine, devices):
    made = _node(machine, devices, events=EventSwitch.DROP | EventSwitch.NEW_FLOW)
    yield made
    made.close()


@pytest.fixture(scope="module")
def loaded_native(machine, devices):
    made = _node(machine, devices, routing=Routing.NATIVE)
    yield made
    made.close()


@pytest.fixture
def node(loaded_vxlan):
    """A node whose routing is vxlan."""
    loaded_vxlan.fill()
    return loaded_vxlan


@pytest.fixture
def native(loaded_native):
    """A node whose routing is native."""
    loaded_native.fill()
    return loaded_native


@pytest.fixture(scope="session")
def tunnel_key_object(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("bpf"))


@pytest.fixture
def tunnel(node, tunnel_key_object):
    """What the vxlan device brings to ``node``."""
    made = Tunnel(node, tunnel_key_object)
    yield made
    made.close()


@pytest.fixture(params=[V4, V6], ids=["ipv4", "ipv6"])
def ip(request) -> Family:
    """Addresses of one family, then of the other."""
    return request.param
