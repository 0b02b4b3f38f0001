"""Putting a version into service: pins, entries that move to other maps, failures that change nothing."""

import sys
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from fast.datapath.bpf import (
    DATAPATH,
    FROM_POD,
    TO_POD,
    ClusterPod,
    ClusterPods,
    Config,
    Device,
    Flow,
    FlowFlag,
    FlowKey,
    Flows,
    Kind,
    Links,
    LocalDev,
    LocalPod,
    LocalPods,
    Metrics,
    PacketDirection,
    PinDirectory,
    Program,
    Reason,
    RunContext,
    install,
    load,
)
from fast.datapath.bpf.map_spec import MapType
from fast.datapath.bpf.maps import RAW, Map, open_map
from fast.datapath.bpf.pins import open_pin
from fast.errors import BPFError, LayoutMismatch, MapFull, VerifierError
from kernel.bpf.frames import send, stream
from kernel.bpf.node import HOST_MAC, MAC_A, NODE, OTHER_NODE, V4, make_devices
from kernel.bpf.packets import ETH_IPV4, TCP, Ip, ethernet, tcp
from kernel.bpf.sources import compile_changed
from kernel.lab import Machine, eventually

PINS = PinDirectory(Path("/sys/fs/bpf/fast"))
SPEC = DATAPATH.configured(Config(node_ip=NODE)).sized(
    fast_flow_table=1024, fast_cluster_pods=1024, fast_events=1 << 16
)
PODS = {ip_address(f"10.244.7.{i}"): ClusterPod(OTHER_NODE) for i in range(200)}
FLOWS = {FlowKey.of((V4.a, port), (V4.r, 80), TCP): Flow(port) for port in range(1000, 1200)}


class Place:
    """A machine whose bpf filesystem has pins; everything about them has to run *on* it."""

    def __init__(self) -> None:
        self.machine = Machine("install", workers=6)
        self.on = self.machine.call
        self.devices = make_devices(self.machine)
        self.machine.run("ip link set ha up; ip link set ha-p up")

    def install(self, spec=SPEC):
        """Install, and keep nothing open: pins and links alone have to hold everything."""
        self.on(install, spec, PINS).close()

    def fill(self) -> None:
        """Put entries into the pinned maps."""

        def run():
            with (
                ClusterPods.open(PINS.maps) as cluster,
                Flows.open(PINS.maps) as flows,
                LocalPods.open(PINS.maps) as pods,
            ):
                cluster.put_many(PODS)
                flows.put_many(FLOWS)
                pods.put(V4.a, LocalPod(self.devices["ha"], MAC_A, HOST_MAC))

        self.on(run)

    def content(self, map_class):
        def run():
            with map_class.open(PINS.maps) as opened:
                return dict(opened.items())

        return self.on(run)

    def info(self, name):
        def run():
            with Map(open_pin(PINS.maps / name), name, RAW, RAW) as opened:
                return opened.info

        return self.on(run)

    def ids(self):
        return {spec.name: self.info(spec.name).id for spec in DATAPATH.maps}

    def programs(self):
        return {spec.name: self.on(Program.open, PINS, spec.name).id for spec in DATAPATH.programs}

    def counted(self, reason, direction=PacketDirection.FROM_POD):
        def run():
            with Metrics.open(PINS.maps) as metrics:
                return metrics.get(reason, direction).packets

        return self.on(run)

    def attach(self, *names):
        for name in names:
            self.on(lambda name=name: Links(PINS).attach(self.devices["ha"], Program.open(PINS, name)))

    def staged(self):
        return self.on(lambda: [path.name for path in PINS.staged.iterdir()])


@pytest.fixture
def place():
    made = Place()
    yield made
    made.machine.close()


@pytest.fixture(scope="session")
def changed_object(tmp_path_factory):
    """Compile the object from sources with something changed."""
    return lambda *changes: compile_changed(tmp_path_factory.mktemp("changed"), *changes)


def with_object(path):
    """Give SPEC with another object file."""
    return type(SPEC)(path, SPEC.programs, SPEC.maps, SPEC.config)


def test_the_first_installation_pins_every_map_and_program(place):
    place.install()
    assert set(place.on(lambda: [path.name for path in PINS.maps.iterdir()])) == {
        spec.name for spec in DATAPATH.maps
    }
    assert set(place.programs()) == {spec.name for spec in DATAPATH.programs}


def test_installing_again_keeps_maps_and_entries_and_exchanges_programs(place):
    place.install()
    place.fill()
    maps, programs = place.ids(), place.programs()
    place.install()
    assert place.ids() == maps
    assert not set(place.programs().values()) & set(programs.values())
    assert place.content(ClusterPods) == PODS
    assert place.content(Flows) == FLOWS


def test_maps_of_another_size_take_over_all_entries(place):
    place.install()
    place.fill()
    place.attach(FROM_POD)
    send(
        place.machine,
        "ha-p",
        ethernet(MAC_A, HOST_MAC, ETH_IPV4, bytes(Ip(V4.a, V4.outside, TCP, tcp(1, 2)))),
    )
    before = place.ids()
    place.install(
        SPEC.sized(fast_flow_table=4096, fast_cluster_pods=300, fast_local_pods=16, fast_events=1 << 17)
    )
    after = place.ids()
    assert {name for name in after if after[name] != before[name]} == {
        "fast_flow_table",
        "fast_cluster_pods",
        "fast_local_pods",
        "fast_events",
    }
    assert place.content(ClusterPods) == PODS
    assert place.content(Flows) == FLOWS
    assert place.content(LocalPods) == {V4.a: LocalPod(place.devices["ha"], MAC_A, HOST_MAC)}
    eventually(lambda: place.counted(Reason.STACK_NOT_POD) == 1)
    assert place.staged() == []


def test_programs_work_from_the_maps_that_took_over(place):
    place.install()
    place.fill()
    place.attach(FROM_POD, TO_POD)
    place.install(SPEC.sized(fast_flow_table=4096, fast_local_pods=16))

    def forget():
        with Flows.open(PINS.maps) as flows, LocalPods.open(PINS.maps) as pods:
            flows.delete_many(FLOWS)
            pods.delete(V4.a)

    to_remote = ethernet(
        MAC_A, HOST_MAC, ETH_IPV4, bytes(Ip(V4.a, ip_address("10.244.7.7"), TCP, tcp(1000, 80)))
    )
    send(place.machine, "ha-p", to_remote)
    eventually(lambda: place.counted(Reason.DROP_NO_DEVICE) == 1)  # the pod's own, for a remote pod
    place.on(forget)
    send(place.machine, "ha-p", to_remote)
    eventually(lambda: place.counted(Reason.DROP_SPOOFED_ADDRESS) == 1)


def test_entries_that_do_not_fit_are_an_error_that_names_the_map_and_changes_nothing(place):
    place.install()
    place.fill()
    place.attach(FROM_POD)
    maps, programs, attached = place.ids(), place.programs(), place.on(Links(PINS).all)
    with pytest.raises(MapFull, match="fast_cluster_pods is full"):
        place.install(SPEC.sized(fast_cluster_pods=100))
    assert (place.ids(), place.programs(), place.on(Links(PINS).all)) == (maps, programs, attached)
    place.install()
    assert place.ids() == maps
    assert place.staged() == []


def test_entries_move_to_another_layout_by_the_names_of_their_fields(place, changed_object):
    older = changed_object(
        (
            "lib/maps.h",
            r"\t__u32 ifindex;\s+/\* the veth's host side \*/",
            "\t__u64 of_before;\n\t__u32 ifindex;",
        ),
        ("lib/maps.h", r"\t__u32 owner; /\*", "\t__u32 pad;\n\t__u32 owner; /*"),
    )
    place.install(with_object(older))

    def fill():
        with Map(open_pin(PINS.maps / "fast_local_pods"), "", RAW, RAW) as pods:
            assert pods.info.value_bytes == LocalPod.FORMAT.size + 16  # with padding to eight, twice
            entry = LocalPod(7, MAC_A, HOST_MAC).pack()
            older = entry[:4] + bytes(4) + b"\x55" * 8 + entry[4:40] + bytes(4) + entry[40:]
            pods.put_many_raw({bytes(10) + b"\xff\xff" + V4.a.packed: older})
        with Map(open_pin(PINS.maps / "fast_flow_table"), "", RAW, RAW) as flows:
            packed = {key.pack(): flow.pack() for key, flow in FLOWS.items()}
            flows.put_many_raw(
                {key: raw[:20] + b"\x55" * 4 + raw[20:] + bytes(4) for key, raw in packed.items()}
            )

    place.on(fill)
    place.install()
    assert place.content(LocalPods) == {V4.a: LocalPod(7, MAC_A, HOST_MAC)}
    assert place.content(Flows) == FLOWS


def test_flows_of_the_version_that_had_them_in_another_map_stay_on_the_stack(place, changed_object):
    older = changed_object(
        (
            "lib/maps.h",
            r"BPF_MAP_TYPE_HASH\);(\n\t__uint\(max_entries, 262144\);\n\t__type\(key, struct fast_flow_key\);\n.*\n\} )"
            r"fast_flow_table SEC\(\"\.maps\"\);",
            r'BPF_MAP_TYPE_LRU_HASH);\1fast_flows SEC(".maps");\n#define fast_flow_table fast_flows',
        ),
    )
    before = replace(DATAPATH.map("fast_flow_table"), name="fast_flows", type=MapType.LRU_HASH, replaces="")
    maps = tuple(before if item.replaces else item for item in SPEC.maps)
    place.install(replace(SPEC, path=older, maps=tuple(replace(item, replaces="") for item in maps)))

    def fill():
        with Map(open_pin(PINS.maps / "fast_flows"), "", RAW, RAW) as flows:
            unmarked = {key.pack(): replace(flow, flags=FlowFlag.NONE).pack() for key, flow in FLOWS.items()}
            flows.put_many_raw(unmarked)

    place.on(fill)
    place.install()
    assert place.content(Flows) == FLOWS
    assert not place.on((PINS.maps / "fast_flows").exists)


def test_a_layout_that_nothing_can_be_converted_to_is_an_error_and_changes_nothing(place, changed_object):
    older = changed_object(
        ("lib/maps.h", r"__u8 kind; [^\n]*\n\t__u8 flags;\n\t__u16 pad;", "__u16 kind;\n\t__u16 flags;"),
        ("fast.bpf.c", "entry->kind", "(__u8)entry->kind"),
    )
    place.install(with_object(older))
    before = place.ids()
    with pytest.raises(LayoutMismatch, match="value of fast_cluster_pods has field 'kind'"):
        place.install()
    assert place.ids() == before


def test_a_map_that_only_has_another_layout_is_not_opened_by_mistake(place, changed_object):
    older = changed_object(
        ("lib/maps.h", r"\t__u64 isolated_since_ns;\n};", "\t__u64 isolated_since_ns;\n\t__u64 more;\n};")
    )
    place.install(with_object(older))
    with pytest.raises(LayoutMismatch, match="fast_local_pods"):
        place.on(LocalPods.open, PINS.maps)


@pytest.mark.parametrize("dies_in", ["_move", "_pin_programs", "_commit"])
def test_after_an_agent_that_died_in_the_middle_the_next_one_goes_on(place, monkeypatch, dies_in):
    place.install()
    place.fill()
    place.attach(FROM_POD, TO_POD)
    larger = SPEC.sized(fast_flow_table=4096, fast_cluster_pods=4096)
    module = sys.modules[install.__module__]

    def die(*_):
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(module, dies_in, die)
        with pytest.raises(SystemExit):
            place.install(larger)
    flow = FlowKey.of((V4.a, 5), (V4.r, 80), TCP)

    def meanwhile():
        """Do what programs and agents do between: a flow in the map that the programs use, a pod that goes."""
        with (
            Map(open_pin(PINS.staged / "fast_flow_table"), "", RAW, RAW) as staged,
            ClusterPods.open(PINS.maps) as cluster,
        ):
            staged.put_many_raw({flow.pack(): Flow(5).pack()})
            cluster.delete(ip_address("10.244.7.0"))

    place.on(meanwhile)
    place.install(larger)
    assert place.content(Flows) == FLOWS | {flow: Flow(5)}
    assert place.content(ClusterPods) == {key: PODS[key] for key in PODS if key != ip_address("10.244.7.0")}
    assert (place.info("fast_flow_table").max_entries, place.staged()) == (4096, [])


def test_maps_are_exchanged_under_traffic_without_letting_a_packet_by(place):
    place.install()
    place.fill()
    place.attach(FROM_POD, TO_POD)
    kept = ethernet(MAC_A, HOST_MAC, ETH_IPV4, bytes(Ip(V4.a, V4.outside, TCP, tcp(1, 2))))
    with stream(place.machine, "ha-p", kept) as sending:
        for size in (2048, 4096, 1024):
            place.install(SPEC.sized(fast_flow_table=size, fast_local_pods=size // 16))
            eventually(lambda goal=sending.sent + 20: sending.sent > goal)
    eventually(lambda: place.counted(Reason.STACK_NOT_POD) == sending.sent)
    assert place.counted(Reason.DROP_SPOOFED_ADDRESS) == 0
    assert place.content(Flows) == FLOWS


def test_a_program_that_the_verifier_refuses_is_an_error_with_its_log_and_changes_nothing(
    place, changed_object
):
    broken = changed_object(
        ("lib/parse.h", r"if \(data \+ offset \+ size > packet_data_end\(skb\)\)\n\t\treturn NULL;", ""),
    )
    place.install()
    place.attach(FROM_POD)
    before = place.ids(), place.programs(), place.on(Links(PINS).all)
    with pytest.raises(VerifierError, match=r"fast\.bpf\.o: .*packet") as caught:
        place.install(with_object(broken))
    assert "invalid access to packet" in caught.value.log
    assert (place.ids(), place.programs(), place.on(Links(PINS).all)) == before


def test_an_object_file_that_is_not_there_is_an_error_that_names_it(place, tmp_path):
    with pytest.raises(BPFError, match=r"no-such\.o"):
        place.install(with_object(tmp_path / "no-such.o"))


def test_a_configuration_reaches_the_programs_and_may_differ_from_installation_to_installation(place):
    place.install()
    place.fill()

    def own_node(node_ip):
        spec = DATAPATH.configured(Config(node_ip=node_ip)).sized(
            fast_flow_table=1024, fast_cluster_pods=1024, fast_events=1 << 16
        )
        place.install(spec)
        with (
            place.on(load, spec, PINS) as loaded,
            loaded.cluster_pods as cluster,
            loaded.local_devices as devices,
        ):
            cluster.put(V4.r, ClusterPod(OTHER_NODE, Kind.POD))
            devices.put(Device.TUNNEL, LocalDev(place.devices["tunnel"], 1450))
            frame = ethernet(MAC_A, HOST_MAC, ETH_IPV4, bytes(Ip(V4.a, V4.r, TCP, tcp(1, 2))))
            return place.on(
                loaded.programs[FROM_POD].run, frame, RunContext(ifindex=place.devices["ha"])
            ).verdict

    assert own_node(NODE) == 7
    assert own_node(OTHER_NODE) == -1
    assert own_node(IPv4Address("10.9.9.9")) == 7


def test_without_a_bpf_filesystem_the_error_says_how_to_mount_one(tmp_path):
    with pytest.raises(BPFError, match="mount -t bpf"):
        PinDirectory(tmp_path / "fast").ensure()


def test_removing_the_pins_leaves_nothing(place):
    place.install()
    place.attach(FROM_POD)
    place.on(PINS.remove)
    assert not place.on(PINS.root.exists)
    place.on(PINS.remove)
    assert place.machine.run("tc filter show dev ha ingress") == ""


def test_a_pin_that_is_no_map_is_not_taken_for_one(place):
    place.install()
    spec = DATAPATH.map("fast_flow_table")
    with pytest.raises(LayoutMismatch, match="no map but a prog"):
        place.on(open_map, PINS.programs / FROM_POD, spec)
