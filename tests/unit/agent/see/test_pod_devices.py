"""Whose device it is, or was."""

from ipaddress import ip_address

from fast.agent.see import pod_devices
from fast.agent.see.pod_devices import PodDevices
from fast.datapath.bpf.layout import LocalPod
from fast.net import Mac

ONE, OTHER = ip_address("10.0.0.1"), ip_address("10.0.0.2")


def pod(ifindex: int) -> LocalPod:
    return LocalPod(ifindex, Mac(bytes(6)), Mac(bytes(6)))


class Map:
    """A map of local pods, and a clock."""

    def __init__(self) -> None:
        self.entries = {}
        self.now = 0.0
        self.reads = 0
        self.devices = PodDevices(self.read, lambda: self.now)

    def read(self):
        self.reads += 1
        return list(self.entries.items())


def test_both_addresses_of_a_device_are_found():
    world = Map()
    world.entries = {ONE: pod(7), OTHER: pod(7)}
    assert list(world.devices.addresses(7)) == [ONE, OTHER]


def test_a_pod_that_is_gone_is_still_known():
    world = Map()
    world.entries = {ONE: pod(7)}
    world.devices.refresh()
    world.entries, world.now = {ONE: pod(8)}, 5.0
    assert list(world.devices.addresses(8)) == [ONE]
    assert list(world.devices.addresses(7)) == [ONE]


def test_a_storm_from_a_device_that_is_no_pods_reads_the_map_once_a_second():
    world = Map()
    for _ in range(1000):
        assert world.devices.addresses(3) == ()
    assert world.reads == 1
    world.now, world.entries = 1.5, {ONE: pod(3)}
    assert list(world.devices.addresses(3)) == [ONE]


def test_no_more_devices_are_remembered_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(pod_devices, "MOST_DEVICES", 3)
    world = Map()
    for number in range(5):
        world.entries, world.now = {ONE: pod(number)}, world.now + 2
        world.devices.refresh()
    world.entries, world.now = {}, world.now + 2
    assert [bool(world.devices.addresses(number)) for number in range(5)] == [False, False, True, True, True]
