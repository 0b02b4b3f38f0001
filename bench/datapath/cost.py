"""Measures what each safety feature costs per packet: times the program with and without it.

    make bench-cost [ARGS='--rounds 9 --repeat 200000']

Needs root and clang. Each variant of the programs is compiled from a copy of bpf/ in which the feature's lines are
replaced; a replacement that no longer fits the source is an error. Runs are by BPF_PROG_RUN, interleaved; what is
printed is the median of the rounds' differences with their quartiles, in ns a packet. Packets for another node are left
to the tunnel device: what the program writes itself can be run once only. What checks a packet that comes out of the
tunnel cannot be run like this at all: it has no tunnel key here.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import click

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests")]

from setups import compile_bpf  # noqa: E402

import kernel.bpf.node as lab  # noqa: E402
from fast.datapath.bpf import Config, DevFlag, LocalPod, RunContext  # noqa: E402
from fast.datapath.bpf.spec import DATAPATH  # noqa: E402
from kernel.bpf.packets import TCP, Ip, ethernet, tcp  # noqa: E402
from kernel.lab import Machine  # noqa: E402

_SOURCE_CHECK = """	if (unlikely(!source || source->ifindex != skb->ifindex))
		return check_foreign_source(skb, &packet);
	if (unlikely(!is_source_mac(skb, source->pod_mac)))
		return drop(skb, &packet, FROM_POD, DROP_SPOOFED_MAC);
"""
_FLOW_LOOKUP = """	if (came_through_stack(skb, &packet, &flow))
		return pass(skb, &packet, FROM_POD, STACK_FLOW);
"""
_FRAGMENTS = """	if (unlikely(packet.flags & PACKET_FRAGMENT))
		return pass(skb, &packet, FROM_POD, STACK_FRAGMENT);
"""
_FRAGMENT_BITS = "if (unlikely(ip->frag_off & bpf_htons(IP_MORE_FRAGMENTS | IP_OFFSET_MASK)))"
_SIZE_CHECK = """	if (is_too_big(skb, packet, device->mtu))
		return pass(skb, packet, FROM_POD, STACK_TOO_BIG);
"""
_REMEMBER_LOCAL = "		reason = remember_flow(skb, &packet, TO_POD, source->ifindex);\n"
_REMEMBER_REMOTE = (
    "\t\t\treason = remember_flow(skb, &packet, TO_POD,\n"
    "\t\t\t\t\t       skb->ifindex | FLOW_OWNER_INBOUND);\n"
)
_CHECKED = """	if (unlikely(packet.flags & PACKET_CHECKED)) {
		reason = check_icmp(skb, &packet);
		if (reason)
			return drop(skb, &packet, FROM_POD, reason);
	}

"""
_RECYCLED = """	if (unlikely(pod->address_tail && pod->address_tail != packet->destination.words[3]))
		return drop(skb, packet, direction, DROP_UNKNOWN_DESTINATION);
"""
_COUNT = "	__u32 index = reason * DIRECTION_SLOTS + direction;\n"

_PROGRAM = "fast.bpf.c"


@dataclass(frozen=True)
class Feature:
    """A feature in the source: the file, its lines, and their replacement."""

    name: str
    lines: tuple[tuple[str, str, str], ...]

    def leave_out(self, tree: Path) -> None:
        """Change the copy of bpf/."""
        for file, old, new in self.lines:
            text = (tree / file).read_text()
            if old not in text:
                raise click.ClickException(f"{self.name}: bpf/{file} does not have the lines to leave out")
            (tree / file).write_text(text.replace(old, new, 1))


FEATURES = (
    Feature(
        "source check (address, device, MAC)",
        (
            (_PROGRAM, _SOURCE_CHECK, ""),
            (_PROGRAM, "	source = find_local_pod(&packet.source);\n", ""),
            (_PROGRAM, "(source->flags | (local ? local->flags : 0))", "(local ? local->flags : 0)"),
            (_PROGRAM, "STACK_NOT_POD, source->flags)", "STACK_NOT_POD, 0)"),
            (_PROGRAM, "STACK_NODE, source->flags)", "STACK_NODE, 0)"),
            (_PROGRAM, "struct fast_local_pod *source, *local;", "struct fast_local_pod *local;"),
        ),
    ),
    Feature("flow lookup", ((_PROGRAM, _FLOW_LOOKUP, ""),)),
    Feature("metrics", (("lib/metrics.h", _COUNT, "	return;\n	__u32 index = 0;\n"),)),
    Feature("fragments", ((_PROGRAM, _FRAGMENTS, ""), ("lib/parse.h", _FRAGMENT_BITS, "if (0)"))),
    Feature("size check", (("lib/forward.h", _SIZE_CHECK, ""),)),
    Feature("errors and neighbours", ((_PROGRAM, _CHECKED, "\n"),)),
    Feature("recycled elements", (("lib/forward.h", _RECYCLED, ""),)),
    Feature("memory of flows", ((_PROGRAM, _REMEMBER_LOCAL, ";\n"), (_PROGRAM, _REMEMBER_REMOTE, ";\n"))),
)
WHOLE = Feature("", ())
#: Program, source and destination of a packet, by what it is: the program's whole cost stands above the features'.
PACKETS = {
    "same node": ("fast_from_pod", lab.A, lab.B),
    "across": ("fast_from_pod", lab.A, lab.R),
    "stack to pod": ("fast_to_pod", lab.B, lab.A),
}


def build(feature: Feature, directory: Path) -> Path:
    """Compile the programs without the feature."""
    shutil.copytree(ROOT / "bpf", directory)
    feature.leave_out(directory)
    target = directory / "fast.bpf.o"
    compile_bpf(directory / _PROGRAM, target, "-Wno-everything")
    return target


def load_node(machine: Machine, devices: dict[str, int], program: Path) -> lab.LoadedNode:
    """Load a variant, with the maps filled."""
    config = Config(node_ip=lab.NODE, node_ip6=lab.NODE6, tunnel_port=lab.TUNNEL_PORT, vni=lab.VNI, events=0)
    node = lab.LoadedNode(machine, devices, config, replace(DATAPATH, path=program))
    # Each run gets the packet of the run before. So the source MAC that delivery writes must be A's, too.
    node.local_pods.put(lab.A, LocalPod(devices["ha"], lab.HOST_MAC, lab.HOST_MAC))
    # For the same reason: a packet that is already encapsulated is not a pod's packet.
    node.set_tunnel(DevFlag.NONE)
    return node


def time_ns(node: lab.LoadedNode, place: str, repeat: int) -> int:
    """Return the time of one run, in ns."""
    program, source, destination = PACKETS[place]
    packet = Ip(source, destination, TCP, tcp(40000, 80))
    frame = ethernet(lab.HOST_MAC, lab.MAC_B, packet.ethertype, bytes(packet))
    run = node.object.programs[program].run
    context = RunContext(ifindex=node.devices["ha"])
    return node.machine.call(run, frame, context, repeat).duration_ns


@click.command(help=__doc__.split("\n")[0])
@click.option("--rounds", default=9, show_default=True)
@click.option("--repeat", default=200_000, show_default=True, help="Program runs in one measurement.")
def main(rounds: int, repeat: int) -> None:
    times: dict[tuple[str, str], list[int]] = defaultdict(list)
    machine = Machine("cost", workers=4)
    try:
        devices = lab.make_devices(machine)
        nodes = {}
        with tempfile.TemporaryDirectory(prefix="fast-bench-") as directory:
            for number, feature in enumerate((WHOLE, *FEATURES)):
                program = build(feature, Path(directory) / str(number))
                nodes[feature.name] = load_node(machine, devices, program)
        for _ in range(rounds):
            for name, node in nodes.items():
                for place in PACKETS:
                    times[name, place].append(time_ns(node, place, repeat))
        for node in nodes.values():
            node.close()
    finally:
        machine.close()
    report(times)


def report(times: dict[tuple[str, str], list[int]]) -> None:
    """Print the table."""
    click.echo(f"{'ns a packet':40}" + "".join(f"{place:>18}" for place in PACKETS))
    whole = {place: times[WHOLE.name, place] for place in PACKETS}
    click.echo(f"{'all of it':40}" + "".join(f"{_spelt(whole[place]):>18}" for place in PACKETS))
    for feature in FEATURES:
        costs = (
            _spelt([a - b for a, b in zip(whole[place], times[feature.name, place], strict=True)])
            for place in PACKETS
        )
        click.echo(f"{feature.name:40}" + "".join(f"{cost:>18}" for cost in costs))


def _spelt(values: list[int]) -> str:
    if len(values) == 1:
        return str(values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.0f} ({low:.0f} to {high:.0f})"


if __name__ == "__main__":
    main()
