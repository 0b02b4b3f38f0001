"""Pod to pod over Fast, beside a bare veth, a Linux bridge with kernel VXLAN and the shortest eBPF path.

    python bench/datapath/bench.py --rounds 5 [--out DIRECTORY]

Needs root, gcc, clang, bpftool and iperf3. Everything is in namespaces of its own. All networks stand at once and are
measured in turn, so that what the machine does beside meets all of them; ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import contextlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests")]

from plot import plot  # noqa: E402
from setups import Network, bare_veth, bridge, compile_bpf, fast, shortest  # noqa: E402

_PORT, _IPERF_PORT = 9000, 9001
# Both ends on one CPU. Waking another one costs more than any network here, and differs from time to time; and two CPUs
# overtake each other, so that TCP sends again what was not lost. Throughput is so what a network leaves of one CPU.
_CPU = "0"
_NICE = ("nice", "-n", "-20")
_REPEATS = 5
_BRIDGE, _SHORTEST, _FAST, _VETH = "bridge", "shortest eBPF", "Fast", "bare veth"

BETTER = {
    "UDP p50": "lower",
    "UDP p99": "lower",
    "TCP p50": "lower",
    "TCP p99": "lower",
    "1 stream": "higher",
    "4 streams": "higher",
}
#: Of the numbers below, by measurement, place and network: one a round.
Results = dict[tuple[str, str, str], list[float]]


def start_servers(network: Network, pingpong: Path) -> None:
    """Let everybody answer that is to be measured."""
    for sandbox, address in network.servers.values():
        server = sandbox.start(*_NICE, str(pingpong), "serve", str(_PORT), _CPU)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n", network.name
        sandbox.start(*_NICE, "iperf3", "-s", "-p", str(_IPERF_PORT), "--logfile", "/dev/null")
        deadline = time.monotonic() + 10
        while f":{_IPERF_PORT} " not in sandbox.run("ss -Hltn") + " ":
            assert time.monotonic() < deadline, "iperf3 does not listen"
            time.sleep(0.05)
        network.client.run(f"ping -c 2 -i 0.2 -W 5 -n -q {address}")


def round_trips(
    network: Network, address: str, pingpong: Path, protocol: str, count: int
) -> tuple[float, float]:
    """Give p50 and p99 of a round trip in microseconds."""
    lines = network.client.run(
        f"{' '.join(_NICE)} {pingpong} {protocol} {address} {_PORT} {_CPU} {count}"
    ).split()
    times = [int(line) / 1000 for line in lines]
    return times[len(times) // 2], times[len(times) * 99 // 100]


def throughput(network: Network, address: str, streams: int, megabytes: int) -> float:
    """Give what arrives, in Gbit/s."""
    command = f"iperf3 -c {address} -p {_IPERF_PORT} -n {megabytes}M -P {streams} -J -A {_CPU},{_CPU}"
    text = network.client.run(f"{' '.join(_NICE)} {command}")
    return float(json.loads(text)["end"]["sum_received"]["bits_per_second"] / 1e9)


def measure_round(
    networks: list[Network], pingpong: Path, count: int, megabytes: int, results: Results
) -> None:
    """Measure everything once. Little at a time, and repeated: noise comes in bursts."""
    cells = [(net, place, address) for net in networks for place, (_, address) in net.servers.items()]
    for protocol in ("UDP", "TCP"):
        parts = defaultdict(list)
        for _ in range(_REPEATS):
            for net, place, address in cells:
                parts[place, net.name].append(round_trips(net, address, pingpong, protocol.lower(), count))
        for (place, name), found in parts.items():
            for index, percentile in enumerate(("p50", "p99")):
                median = statistics.median(part[index] for part in found)
                results[f"{protocol} {percentile}", place, name].append(median)
    for label, streams in (("1 stream", 1), ("4 streams", 4)):
        found = defaultdict(list)
        for _ in range(_REPEATS):
            for net, place, address in cells:
                found[place, net.name].append(throughput(net, address, streams, megabytes))
        for (place, name), rates in found.items():
            results[label, place, name].append(statistics.median(rates))


def summarise(results: Results) -> dict[tuple[str, str], dict[str, float]]:
    """Give the medians, by measurement and place, then network. The bare veth has no nodes: it is the limit of both."""
    table: dict[tuple[str, str], dict[str, float]] = {}
    for measurement in BETTER:
        for place in ("same node", "across"):
            row = table.setdefault((measurement, place), {})
            for name in (_VETH, _BRIDGE, _SHORTEST, _FAST):
                rounds = results.get((measurement, place, name)) or results[measurement, "same node", name]
                row[name] = statistics.median(rounds)
    return table


def ratio_of_rounds(results: Results, key: tuple[str, str], name: str, base: str) -> float:
    """Give the median of the rounds' ratios."""
    pairs = zip(results[(*key, name)], results[(*key, base)], strict=True)
    return statistics.median(mine / theirs for mine, theirs in pairs)


def misses(results: Results) -> list[str]:
    """Name the targets that were not met."""
    found = []
    for measurement, better in BETTER.items():
        for place in ("same node", "across"):
            to_bridge = ratio_of_rounds(results, (measurement, place), _FAST, _BRIDGE)
            if (to_bridge >= 1) if better == "lower" else (to_bridge <= 1):
                found.append(f"{measurement}, {place}: {to_bridge:.2f} of the bridge")
            to_shortest = ratio_of_rounds(results, (measurement, place), _FAST, _SHORTEST)
            if measurement.endswith("p50") and to_shortest > 1.05:
                found.append(f"{measurement}, {place}: {to_shortest:.3f} of the shortest path")
    return found


def render(results: Results) -> Table:
    """Make the table."""
    table = Table(title="medians")
    for column in ("", "", _VETH, _BRIDGE, _SHORTEST, _FAST, "Fast/bridge", "Fast/shortest", "wanted"):
        table.add_column(column, justify="right" if column else "left")
    for (measurement, place), row in summarise(results).items():
        key = (measurement, place)
        unit = "µs" if measurement[-3:] in ("p50", "p99") else "Gbit/s"
        table.add_row(
            f"{measurement} {unit}",
            place,
            *(f"{value:.1f}" for value in row.values()),
            f"{ratio_of_rounds(results, key, _FAST, _BRIDGE):.2f}",
            f"{ratio_of_rounds(results, key, _FAST, _SHORTEST):.3f}",
            BETTER[measurement],
        )
    return table


def write(results: Results, out: Path, rounds: int) -> None:
    """Write datapath.json and datapath.svg."""
    medians = summarise(results)
    ratios = {
        key: {name: value / row[_BRIDGE] for name, value in row.items()} for key, row in medians.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "datapath.svg").write_text(plot(ratios, BETTER))
    cells = [
        {
            "measurement": measurement,
            "place": place,
            "medians": row,
            "fast_to_bridge": ratio_of_rounds(results, (measurement, place), _FAST, _BRIDGE),
            "fast_to_shortest": ratio_of_rounds(results, (measurement, place), _FAST, _SHORTEST),
        }
        for (measurement, place), row in medians.items()
    ]
    head = {
        "kernel": platform.release(),
        "rounds": rounds,
        "units": {"round trip": "us", "streams": "Gbit/s"},
    }
    (out / "datapath.json").write_text(
        json.dumps({**head, "cells": cells, "missed": misses(results)}, indent=2) + "\n"
    )


@click.command(help=__doc__.split("\n")[0])
@click.option("--rounds", default=5, show_default=True)
@click.option("--count", default=3000, show_default=True, help="Round trips at a time; five times a round.")
@click.option(
    "--megabytes", default=400, show_default=True, help="Sent at a time to measure throughput; likewise."
)
@click.option(
    "--masquerade/--no-netfilter", default=True, help="What nodes have: any cluster's do, bare ones not."
)
@click.option("--out", type=click.Path(path_type=Path), help="Where datapath.json and datapath.svg go.")
def main(rounds: int, count: int, megabytes: int, masquerade: bool, out: Path | None) -> None:
    results: Results = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="fast-bench-") as directory, contextlib.ExitStack() as stack:
        pingpong, program = Path(directory) / "pingpong", Path(directory) / "shortest_path.bpf.o"
        subprocess.run(["gcc", "-O2", "-Wall", "-o", pingpong, HERE / "pingpong.c"], check=True)
        compile_bpf(HERE / "shortest_path.bpf.c", program)
        makers = (
            bare_veth(),
            bridge(masquerade=masquerade),
            shortest(program, masquerade=masquerade),
            fast(masquerade=masquerade),
        )
        networks = [stack.enter_context(maker) for maker in makers]
        for network in networks:
            start_servers(network, pingpong)
        for number in track(range(rounds), "rounds", console=Console(stderr=True)):
            turned = networks[number % 4 :] + networks[: number % 4]
            measure_round(turned, pingpong, count, megabytes, results)
    Console(width=110).print(render(results))
    for miss in misses(results):
        click.echo(f"missed: {miss}")
    if out is not None:
        write(results, out, rounds)


if __name__ == "__main__":
    main()
