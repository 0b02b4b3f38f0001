"""Attachments: made, adopted, exchanged under traffic, turned from tcx to clsact and back, collected when dead."""

import errno
import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from fast.datapath.bpf import (
    DATAPATH,
    FROM_POD,
    TO_POD,
    AttachMode,
    Config,
    Direction,
    Interface,
    Links,
    PacketDirection,
    PinDirectory,
    Program,
    Reason,
    install,
    load,
)
from fast.datapath.bpf.libbpf import ffi, lib
from fast.errors import BPFError
from fast.net import Mac
from kernel.bpf.frames import send, stream
from kernel.bpf.node import HOST_MAC, MAC_A, NODE, V4, make_devices
from kernel.bpf.packets import ETH_ARP, ETH_IPV4, TCP, Ip, arp, ethernet, tcp
from kernel.lab import Machine, eventually

PINS = PinDirectory(Path("/sys/fs/bpf/fast"))
SPEC = DATAPATH.configured(Config(node_ip=NODE)).sized(
    fast_flow_table=1024, fast_cluster_pods=1024, fast_events=1 << 16
)

#: No map has anything in it here, so fast_from_pod refuses it by its source and says so.
SPOOFED = ethernet(Mac.derived("x"), HOST_MAC, ETH_IPV4, bytes(Ip(V4.a, V4.b, TCP, tcp(1, 2))))
ARP = ethernet(MAC_A, Mac(b"\xff" * 6), ETH_ARP, arp(1, MAC_A, ip_address("0.0.0.0"), V4.a))


class Place:
    """A machine with devices, an installed object, and both ways to attach it."""

    def __init__(self) -> None:
        self.machine = Machine("links", workers=6)
        self.on = self.machine.call
        self.devices = make_devices(self.machine)
        self.machine.run("for d in ha ha-p hb hb-p; do ip link set $d up; done")
        self.object = self.on(install, SPEC, PINS)
        self.tcx = self.on(Links, PINS, AttachMode.TCX)
        self.clsact = self.on(Links, PINS, AttachMode.CLSACT)
        self.metrics = self.object.metrics
        with self.object.interfaces as interfaces:
            interfaces.put(self.ifindex, Interface(MAC_A))

    @property
    def program(self) -> Program:
        return self.object.programs[FROM_POD]

    @property
    def ifindex(self) -> int:
        return self.devices["ha"]

    def spoofed(self) -> int:
        """Give how many spoofed packets were refused."""
        return self.metrics.get(Reason.DROP_SPOOFED_ADDRESS, PacketDirection.FROM_POD).packets

    def sees_packets(self) -> bool:
        """Send two packets; tell whether the program looked at each once."""
        before = self.spoofed()
        send(self.machine, "ha-p", SPOOFED, SPOOFED)
        try:
            eventually(lambda: self.spoofed() >= before + 2, seconds=0.3)
        except AssertionError:
            assert self.spoofed() == before, "it saw one of two"
            return False
        assert self.spoofed() == before + 2
        return True

    def attach(self, links: Links, program: Program | None = None):
        return self.on(links.attach, self.ifindex, program or self.program)

    def attached(self):
        return self.on(self.tcx.find, self.ifindex, Direction.INGRESS, FROM_POD)

    def close(self) -> None:
        self.metrics.close()
        self.object.close()
        self.machine.close()


def counted(metrics, reason, direction):
    return metrics.get(reason, direction).packets


@pytest.fixture
def place():
    made = Place()
    yield made
    made.close()


@pytest.fixture(params=AttachMode)
def mode(request):
    """Either way to attach."""
    return request.param


@pytest.fixture
def links(place, mode):
    """What attaches in that way."""
    return place.tcx if mode is AttachMode.TCX else place.clsact


def test_an_attached_program_sees_packets_until_it_is_detached(place, links, mode):
    assert not place.sees_packets()
    attached = place.attach(links)
    assert (attached.ifindex, attached.program, attached.mode) == (place.ifindex, FROM_POD, mode)
    assert attached == place.attached()
    assert place.sees_packets()
    assert place.on(links.detach, place.ifindex, Direction.INGRESS, FROM_POD)
    assert not place.sees_packets()
    assert place.attached() is None
    assert not place.on(links.detach, place.ifindex, Direction.INGRESS, FROM_POD)


def test_attaching_again_changes_nothing(place, links):
    assert place.attach(links) == place.attach(links)
    assert place.sees_packets()
    assert len(place.on(links.all)) == 1


def test_an_agent_that_comes_later_finds_and_exchanges_what_is_attached(place, links, mode):
    place.attach(links)
    place.object.close()
    place.object = place.on(install, SPEC, PINS)
    assert (place.attached().program_id, place.attached().mode) == (place.program.id, mode)
    assert place.sees_packets()


def test_exchanging_programs_under_traffic_lets_no_packet_by(place, links):
    place.attach(links)
    before = place.spoofed()
    with stream(place.machine, "ha-p", SPOOFED) as sending:
        for _ in range(20):
            with place.on(load, SPEC, PINS) as newer:
                place.on(links.replace, newer.programs, Direction.INGRESS)
            eventually(lambda goal=sending.sent + 20: sending.sent > goal)
    assert sending.sent > 400
    eventually(lambda: place.spoofed() - before == sending.sent)


def test_turning_tcx_into_clsact_and_back_under_traffic_lets_no_packet_by(place):
    place.attach(place.tcx)
    before = place.spoofed()
    with stream(place.machine, "ha-p", SPOOFED) as sending:
        for _ in range(5):
            for wanted in (AttachMode.CLSACT, AttachMode.TCX):
                either = place.on(Links, PINS)
                assert place.on(either.attach, place.ifindex, place.program, wanted).mode is wanted
                eventually(lambda goal=sending.sent + 20: sending.sent > goal)
    eventually(lambda: place.spoofed() - before == sending.sent)
    assert "fast_from_pod" not in place.machine.run("tc filter show dev ha ingress")


def test_both_directions_and_several_devices_are_kept_apart(place, links):
    for device in ("ha", "hb"):
        for name in (FROM_POD, TO_POD):
            place.on(links.attach, place.devices[device], place.object.programs[name])
    assert [(item.ifindex, item.direction, item.program) for item in place.on(links.all)] == [
        (place.devices[device], direction, name)
        for device in ("ha", "hb")
        for direction, name in ((Direction.INGRESS, FROM_POD), (Direction.EGRESS, TO_POD))
    ]
    place.on(links.detach, place.devices["hb"], Direction.INGRESS, FROM_POD)
    assert place.sees_packets()


def test_when_the_device_is_gone_the_attachment_is_dead_and_collected(place, links):
    place.attach(links)
    place.machine.run("ip link del ha")
    dead = place.attached()
    assert dead is not None
    assert not dead.alive
    assert place.on(links.replace, place.object.programs, Direction.INGRESS) == []
    assert place.on(links.collect_dead) == [dead]
    assert place.on(links.all) == []


def test_detaching_from_a_device_that_is_gone_succeeds(place, links):
    place.attach(links)
    place.machine.run("ip link del ha")
    assert place.on(links.detach, place.ifindex, Direction.INGRESS, FROM_POD)
    assert place.on(links.all) == []


def test_attaching_to_a_device_that_is_gone_is_an_error_that_names_it(place, links):
    place.attach(links)
    place.machine.run("ip link del ha")
    with pytest.raises(BPFError, match=rf"fast_from_pod to device {place.ifindex}\b") as caught:
        place.attach(links)
    assert caught.value.errno in (errno.ENODEV, errno.EINVAL)


def test_a_filter_that_somebody_removed_is_dead_and_attaching_repairs_it(place):
    place.attach(place.clsact)
    place.machine.run("tc qdisc del dev ha clsact")
    assert not place.attached().alive
    place.attach(place.clsact)
    assert place.sees_packets()


def test_a_link_that_somebody_detached_is_dead_and_attaching_repairs_it(place):
    place.attach(place.tcx)

    def detach():
        fd = lib.bpf_obj_get(bytes(PINS.links / f"{place.ifindex}-ingress-{FROM_POD}"))
        lib.bpf_link_detach(fd)
        os.close(fd)

    place.on(detach)
    assert not place.attached().alive
    place.attach(place.tcx)
    assert place.sees_packets()


def test_a_link_that_nobody_pinned_is_reported(place):
    fd = place.on(lib.bpf_link_create, place.program.fd, place.ifindex, Direction.INGRESS, ffi.NULL)
    assert fd > 0
    try:
        with pytest.raises(BPFError, match="attached already by a link that is not pinned"):
            place.attach(place.tcx)
    finally:
        os.close(fd)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_tcx_program_of_somebody_else_before_or_behind_ours_sees_what_we_pass(place, first):
    with place.on(load, SPEC) as foreign, foreign.metrics as seen:
        theirs = [foreign.programs[TO_POD].fd, place.ifindex, Direction.INGRESS, ffi.NULL]
        if first == "ours":
            place.attach(place.tcx)
        fd = place.on(lib.bpf_link_create, *theirs)
        assert fd > 0
        try:
            if first == "theirs":
                place.attach(place.tcx)
            send(place.machine, "ha-p", ARP)
            eventually(lambda: counted(place.metrics, Reason.STACK_NEIGHBOUR, PacketDirection.FROM_POD) == 1)
            eventually(lambda: counted(seen, Reason.STACK_TO_POD, PacketDirection.TO_POD) == 1)
        finally:
            os.close(fd)


def test_a_clsact_filter_of_somebody_else_sees_what_we_pass_and_survives_us(place, links):
    with place.on(load, SPEC) as foreign, foreign.metrics as seen:
        assert place.on(lib.fast_clsact_ensure, place.ifindex) == 0
        assert place.on(lib.fast_filter_replace, place.ifindex, 0, foreign.programs[TO_POD].fd, 1, 90) == 0
        place.attach(links)
        send(place.machine, "ha-p", ARP)
        eventually(lambda: counted(seen, Reason.STACK_TO_POD, PacketDirection.TO_POD) == 1)
        place.on(links.detach, place.ifindex, Direction.INGRESS, FROM_POD)
        send(place.machine, "ha-p", ARP)
        eventually(lambda: counted(seen, Reason.STACK_TO_POD, PacketDirection.TO_POD) == 2)


@pytest.mark.parametrize(
    ("ethertype", "body"),
    [(ETH_IPV4, b""), (ETH_IPV4, bytes(Ip(V4.a, V4.b, TCP, b""))[:19]), (0x86DD, b"\x60" + bytes(38))],
)
def test_a_frame_that_ends_inside_its_ip_header_is_refused(place, ethertype, body):
    place.attach(place.tcx)
    send(place.machine, "ha-p", ethernet(Mac.derived("x"), HOST_MAC, ethertype, body))
    eventually(lambda: counted(place.metrics, Reason.DROP_TRUNCATED, PacketDirection.FROM_POD) == 1)


def test_a_frame_with_a_vlan_tag_that_the_kernel_took_out_is_refused(place):
    place.attach(place.tcx)
    tagged = b"\0\x05\x08\x00" + bytes(Ip(V4.a, V4.b, TCP, tcp(1, 2)))
    send(place.machine, "ha-p", ethernet(Mac.derived("x"), HOST_MAC, 0x8100, tagged))
    eventually(lambda: counted(place.metrics, Reason.DROP_VLAN_TAGGED, PacketDirection.FROM_POD) == 1)
