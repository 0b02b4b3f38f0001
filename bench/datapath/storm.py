"""Measures what a dropped packet, its counters and its event cost, and what a listener costs.

    make bench-storm [ARGS='--rounds 9 --repeat 200000']

Needs root and clang. Variants of the programs are compiled from copies of bpf/ in which lines are left out, and run by
BPF_PROG_RUN, interleaved. A million drops a second take so much of one processor as a thousandth of the ns a drop says.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import click

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests")]

from cost import WHOLE, Feature, build  # noqa: E402

import kernel.bpf.node as lab  # noqa: E402
from fast.datapath.bpf import Config, EventSwitch, LocalPod, RunContext  # noqa: E402
from fast.datapath.bpf.spec import DATAPATH  # noqa: E402
from fast.net import IPAddress  # noqa: E402
from kernel.bpf.packets import TCP, Ip, ethernet, tcp  # noqa: E402
from kernel.lab import Machine  # noqa: E402

_METRICS = "lib/metrics.h"
_COUNT = "\tcount_drop(ifindex, packet, direction, reason, now);\n"
_EVENT = (
    "\tif ((fast_config.events & EVENT_DROP) && may_tell(EVENT_DROP, now))\n"
    "\t\ttell(ifindex, packet, EVENT_DROP, direction, reason);\n"
)
_SWITCH = (
    "\tif (is_listened_to(EVENT_SAMPLE) && !(bpf_get_prandom_u32() & fast_config.sample_mask))\n"
    "\t\ttell_listener(skb, packet, EVENT_SAMPLE, direction, reason);\n"
)
_EVERYTHING = EventSwitch.DROP | EventSwitch.NEW_FLOW | EventSwitch.SAMPLE
FEATURES = (
    Feature("counting by who and why", ((_METRICS, _COUNT, ""),)),
    Feature("events of drops", ((_METRICS, _EVENT, ""),)),
    Feature("switch of samples", ((_METRICS, _SWITCH, ""),)),
)


def load_node(machine: Machine, devices: dict[str, int], program: Path) -> lab.LoadedNode:
    """Load a variant as an agent does, without a listener."""
    config = Config(node_ip=lab.NODE, tunnel_port=lab.TUNNEL_PORT, vni=lab.VNI, events=_EVERYTHING)
    node = lab.LoadedNode(machine, devices, config, replace(DATAPATH, path=program))
    node.local_pods.put(lab.A, LocalPod(devices["ha"], lab.HOST_MAC, lab.HOST_MAC))
    node.listen(EventSwitch.NONE)
    return node


def time_ns(node: lab.LoadedNode, source: IPAddress, repeat: int) -> int:
    """Return what a packet from pod A's device to pod B takes; dropped if ``source`` is not A."""
    packet = Ip(source, lab.B, TCP, tcp(40000, 80))
    frame = ethernet(lab.HOST_MAC, lab.MAC_B, packet.ethertype, bytes(packet))
    run, context = node.object.programs["fast_from_pod"].run, RunContext(ifindex=node.devices["ha"])
    return node.machine.call(run, frame, context, repeat).duration_ns


@click.command(help=__doc__.split("\n")[0])
@click.option("--rounds", default=9, show_default=True)
@click.option("--repeat", default=200_000, show_default=True, help="Program runs in one measurement.")
def main(rounds: int, repeat: int) -> None:
    times: dict[tuple[str, str], list[int]] = defaultdict(list)
    machine = Machine("storm", workers=4)
    nodes: dict[str, lab.LoadedNode] = {}
    try:
        devices = lab.make_devices(machine)
        with tempfile.TemporaryDirectory(prefix="fast-bench-") as directory:
            for number, feature in enumerate((WHOLE, *FEATURES)):
                program = build(feature, Path(directory) / str(number))
                nodes[feature.name] = load_node(machine, devices, program)
        for _ in range(rounds):
            for name, node in nodes.items():
                times[name, "dropped"].append(time_ns(node, lab.R, repeat))
                times[name, "forwarded"].append(time_ns(node, lab.A, repeat))
            whole = nodes[WHOLE.name]
            whole.listen(_EVERYTHING)
            times["listened to", "forwarded"].append(time_ns(whole, lab.A, repeat))
            whole.listen(EventSwitch.NONE)
    finally:
        for node in nodes.values():
            node.close()
        machine.close()
    report(times)


def report(times: dict[tuple[str, str], list[int]]) -> None:
    """Print medians in ns, with quartiles; of parts, those of the rounds' differences."""
    dropped, forwarded = times[WHOLE.name, "dropped"], times[WHOLE.name, "forwarded"]
    lines = [
        ("a dropped packet", dropped),
        ("  of it: counting by who and why", _less(dropped, times[FEATURES[0].name, "dropped"])),
        ("  of it: events, limited", _less(dropped, times[FEATURES[1].name, "dropped"])),
        ("a forwarded packet", forwarded),
        ("  of it: the switch, nobody listens", _less(forwarded, times[FEATURES[2].name, "forwarded"])),
        ("  more if somebody listens", _less(times["listened to", "forwarded"], forwarded)),
    ]
    for name, values in lines:
        low, median, high = (
            statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        )
        click.echo(f"{name:40}{median:8.0f} ns   ({low:.0f} to {high:.0f})")


def _less(whole: list[int], part: list[int]) -> list[int]:
    return [one - other for one, other in zip(whole, part, strict=True)]


if __name__ == "__main__":
    main()
