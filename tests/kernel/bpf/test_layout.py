"""What `make generate` wrote of structs and enums, compared with the object's BTF field by field."""

import struct
from dataclasses import fields, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from fast.datapath.bpf import generated, layout, reasons, spec
from fast.datapath.bpf.objects import object_btf
from fast.net import Mac
from fast.policy.map_layout import PodFlag, PodPolicy, RuleSetFlag, RuleSetValue, pack_bits, pack_key
from fast.policy.peers import Prefix
from fast.policy.ports import PortPrefix

STRUCTS = {
    generated.LocalPod: {},
    generated.ClusterPod: {},
    generated.Interface: {},
    generated.FlowLimit: {},
    generated.LocalDev: {},
    generated.NextHop: {},
    generated.RawFlowKey: {},
    generated.Flow: {},
    generated.Metric: {"byte_count": "bytes"},
    generated.Event: {"length_bytes": "length"},
    generated.RawConfig: {},
    generated.DropKey: {},
    generated.DropCount: {"byte_count": "bytes"},
    generated.EventBudget: {},
}
#: What fast.policy packs by itself: it must not import the datapath.
POLICY_STRUCTS = {
    "fast_bits": pack_bits(1),
    "fast_ruleset": RuleSetValue(1, 2, 3, 4, 5, 6, RuleSetFlag(0), 7).pack(),
    "fast_ruleset_id": bytes(16),
    "fast_peer_key": pack_key((1, 2)),
    "fast_port_key": pack_key((1, PortPrefix(6, 80, 16))),
    "fast_block_key": pack_key(Prefix(bytes(16), 8)),
}
ENUMS = {
    "fast_routing": (layout.Routing, "ROUTING_"),
    "fast_event_kind": (layout.EventSwitch, "EVENT_"),
    "fast_local_pod_flag": (layout.LocalPodFlag, "POD_"),
    "fast_kind": (layout.Kind, "KIND_"),
    "fast_device_role": (layout.Device, "DEVICE_"),
    "fast_dev_flag": (layout.DevFlag, "DEV_"),
    "fast_config_flag": (layout.ConfigFlag, "CONFIG_"),
    "fast_flow_flag": (layout.FlowFlag, "FLOW_"),
    "fast_reason": (reasons.Reason, ""),
    "fast_direction": (reasons.PacketDirection, ""),
}


@pytest.fixture(scope="module")
def btf():
    return object_btf(spec.DATAPATH)


def pieces(format_):
    """Give (offset, size) of every value that a struct format packs, its padding left out."""
    offset, found = 0, []
    text = format_.format.removeprefix("=")
    position = 0
    while position < len(text):
        count = ""
        while text[position].isdigit():
            count += text[position]
            position += 1
        code = text[position]
        position += 1
        size = struct.calcsize(f"={count}{code}")
        if code == "s":
            found.append((offset, size))
        elif code != "x":
            one = struct.calcsize(f"={code}")
            found += [(offset + i * one, one) for i in range(int(count or 1))]
        offset += size
    return found


@pytest.mark.parametrize("mirror", STRUCTS, ids=lambda mirror: mirror.C_NAME)
def test_a_mirrored_struct_has_the_size_and_the_pieces_of_its_c_original(btf, mirror):
    size, members = btf.struct(mirror.C_NAME)
    assert mirror.FORMAT.size == size
    mine = pieces(mirror.FORMAT)
    theirs = [(field.offset_bytes, field.size_bytes) for field in members if field.name != "pad"]
    assert [piece for piece in mine if piece in theirs] == theirs
    padding = [(field.offset_bytes, field.size_bytes) for field in members if field.name == "pad"]
    assert set(mine) - set(theirs) <= set(padding)


@pytest.mark.parametrize("mirror", STRUCTS, ids=lambda mirror: mirror.C_NAME)
def test_a_mirrored_structs_fields_have_the_names_of_its_c_original(btf, mirror):
    names = STRUCTS[mirror]
    _, members = btf.struct(mirror.C_NAME)
    theirs = {field.name for field in members} - {"pad"}
    mine = {names.get(field.name, field.name) for field in fields(mirror)}
    assert mine == theirs


ONE, OTHER = bytes([1] * 16), bytes([2] * 16)
#: For each type of a field two values that differ in as many bytes as they can.
VALUES = {
    "int": (0x01, 0x02),
    "IPv4Address": (IPv4Address(ONE[:4]), IPv4Address(OTHER[:4])),
    "IPAddress": (IPv6Address(ONE), IPv6Address(OTHER)),
    "Mac": (Mac(ONE[:6]), Mac(OTHER[:6])),
    "Kind": tuple(layout.Kind),
    "LocalPodFlag": (layout.LocalPodFlag.NONE, layout.LocalPodFlag.VIA_STACK),
    "ConfigFlag": (layout.ConfigFlag.NONE, layout.ConfigFlag.BLOCK_METADATA),
    "FlowFlag": (layout.FlowFlag.STACK, layout.FlowFlag.ANSWERED),
    "DevFlag": (layout.DevFlag.NONE, layout.DevFlag.MAY_BE_SKIPPED),
    "Routing": tuple(layout.Routing),
    "EventSwitch": (layout.EventSwitch.DROP, layout.EventSwitch.SAMPLE),
}


@pytest.mark.parametrize(
    ("mirror", "name"),
    [(mirror, field.name) for mirror in STRUCTS for field in fields(mirror)],
    ids=lambda value: getattr(value, "C_NAME", value),
)
def test_a_mirrored_field_is_written_where_c_has_the_field_of_its_name_and_nowhere_else(btf, mirror, name):
    values = {field.name: VALUES[field.type] for field in fields(mirror)}
    whole = mirror(**{name: pair[0] for name, pair in values.items()})
    changed = replace(whole, **{name: values[name][1]})
    assert [mirror.unpack(each.pack()) for each in (whole, changed)] == [whole, changed]

    touched = {
        at for at, pair in enumerate(zip(whole.pack(), changed.pack(), strict=True)) if len(set(pair)) > 1
    }
    _, members = btf.struct(mirror.C_NAME)
    wanted = STRUCTS[mirror].get(name, name)
    (place,) = (
        range(field.offset_bytes, field.offset_bytes + field.size_bytes)
        for field in members
        if field.name == wanted
    )
    assert touched, f"{wanted} is not written"
    assert touched <= set(place)


@pytest.mark.parametrize("c_name", POLICY_STRUCTS)
def test_the_policy_package_packs_as_many_bytes_as_the_c_struct_has(btf, c_name):
    assert len(POLICY_STRUCTS[c_name]) == btf.struct(c_name)[0]


def test_policys_part_of_a_local_pod_is_its_end(btf):
    """By what both packers write: the same values in the same places."""
    flags = PodFlag.INGRESS_ISOLATED | PodFlag.AUDIT
    numbers = {"peer_class": 2, "ingress_rules": 3, "egress_rules": 4, "epoch": 5}
    numbers |= {"audit_ingress_rules": 6, "audit_egress_rules": 7, "isolated_since_ns": 8}
    mac = Mac.derived("pod")
    whole = layout.LocalPod(1, mac, mac, flags=layout.LocalPodFlag(int(flags)), **numbers).pack()
    assert whole.endswith(PodPolicy(flags, **numbers).pack())
    assert {flag.name: flag.value for flag in PodFlag}.items() <= {
        flag.name: flag.value for flag in layout.LocalPodFlag
    }.items()


def test_every_struct_of_the_maps_has_a_mirror(btf):
    mirrored = {mirror.C_NAME for mirror in STRUCTS} | POLICY_STRUCTS.keys() | {"fast_addr"}
    used = {name for map_ in spec.DATAPATH.maps for name in (map_.key, map_.value) if name}
    assert used <= mirrored


@pytest.mark.parametrize("name", ENUMS)
def test_a_mirrored_enum_has_the_names_and_numbers_of_its_c_original(btf, name):
    mirror, prefix = ENUMS[name]
    theirs = {member.removeprefix(prefix): value for member, value in btf.enum(name).items()}
    theirs.pop("REASON_NONE", None)
    assert {member.name: member.value for member in mirror if member.name != "NONE"} == theirs


def test_every_reason_fits_into_the_metrics_and_drops_begin_where_they_say():
    assert max(reasons.Reason) < reasons.REASON_SLOTS
    assert max(reasons.PacketDirection) < reasons.DIRECTION_SLOTS
    for reason in reasons.Reason:
        assert reason.is_drop == reason.name.startswith("DROP_")


def test_the_document_lists_every_reason_in_its_words():
    text = (Path(__file__).parents[3] / "docs" / "develop" / "datapath.md").read_text()
    rows = [f"| `{reason.name}` | {reason.value} | {reason.description} |" for reason in reasons.Reason]
    assert [row for row in rows if row not in text] == []
    assert text.count("| `DROP_") == sum(reason.is_drop for reason in reasons.Reason)


def test_the_object_has_every_program_and_map_that_the_spec_names(btf):
    for program in spec.DATAPATH.programs:
        assert btf.has_function(program.name)
    for map_ in spec.DATAPATH.maps:
        assert btf.variable(".maps", map_.name)


def test_the_configuration_comes_back_as_it_was_packed():
    told = layout.Config(
        node_ip=IPv4Address("192.0.2.1"),
        node_ip6=IPv6Address("2001:db8::1"),
        tunnel_port=8479,
        vni=7,
        routing=layout.Routing.NATIVE,
        flags=layout.ConfigFlag.BLOCK_METADATA,
        flow_budget=9,
    )
    assert layout.Config.unpack(told.pack()) == told
    assert layout.Config.unpack(replace(told, node_ip6=None).pack()).node_ip6 is None
