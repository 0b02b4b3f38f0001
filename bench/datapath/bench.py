"""Pod to pod over Fast, beside a bare veth, a Linux bridge with kernel VXLAN and the shortest eBPF path.

    make bench-datapath ARGS='--rounds 9 --out DIRECTORY'

Needs root, gcc, clang, bpftool and iperf3. Everything is in namespaces of its own. All networks stand at once and are
measured in turn, so that what the machine does beside meets all of them; ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
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
    """Start the servers in every sandbox that is measured."""
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
    """Return p50 and p99 of a round trip in microseconds."""
    lines = network.client.run(
        f"{' '.join(_NICE)} {pingpong} {protocol} {address} {_PORT} {_CPU} {count}"
    ).split()
    times = [int(line) / 1000 for line in lines]
    return times[len(times) // 2], times[len(times) * 99 // 100]


def throughput(network: Network, address: str, streams: int, megabytes: int) -> float:
    """Return the received throughput, in Gbit/s."""
    command = f"iperf3 -c {address} -p {_IPERF_PORT} -n {megabytes}M -P {streams} -J -A {_CPU},{_CPU}"
    text = network.client.run(f"{' '.join(_NICE)} {command}")
    return float(json.loads(text)["end"]["sum_received"]["bits_per_second"] / 1e9)


def measure_round(
    networks: list[Network], pingpong: Path, count: int, megabytes: int, results: Results
) -> None:
    """Measure everything once. Each measurement is short and repeated, because noise comes in bursts."""
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


def rounds_of(results: Results, key: tuple[str, str], name: str) -> list[float]:
    """Return a cell's numbers, one a round. The bare veth has no nodes, so it is the limit for both places."""
    measurement, place = key
    return results.get((measurement, place, name)) or results[measurement, "same node", name]


def ratios_of(results: Results, key: tuple[str, str], name: str, base: str) -> list[float]:
    """Return the ratios of one network to another, one a round."""
    pairs = zip(rounds_of(results, key, name), rounds_of(results, key, base), strict=True)
    return [mine / theirs for mine, theirs in pairs]


def interval(values: list[float]) -> tuple[float, float]:
    """Return the 95% confidence interval of the median, by order statistics; of fewer than six values, their range."""
    ordered, count = sorted(values), len(values)
    below = 0  # how many values to leave out at each end
    while sum(math.comb(count, hits) for hits in range(below + 1)) / 2**count <= 0.025:
        below += 1
    below = max(0, below - 1)
    return ordered[below], ordered[count - 1 - below]


def cells() -> Iterator[tuple[str, str]]:
    """Yield every measurement at every place."""
    for measurement in BETTER:
        for place in ("same node", "across"):
            yield measurement, place


def verdicts(results: Results) -> list[str]:
    """Name the targets that were missed, and those that the rounds do not prove to be met."""
    found = []
    for key in cells():
        measurement, place = key
        sign = 1 if BETTER[measurement] == "lower" else -1
        to_bridge = ratios_of(results, key, _FAST, _BRIDGE)
        worst = interval(to_bridge)[1 if sign > 0 else 0]
        median = statistics.median(to_bridge)
        if sign * (median - 1) >= 0:
            found.append(f"missed: {measurement}, {place}: {median:.2f} of the bridge")
        elif sign * (worst - 1) >= 0:
            found.append(
                f"not shown: {measurement}, {place}: {median:.2f} of the bridge, but perhaps {worst:.2f}"
            )
        to_shortest = statistics.median(ratios_of(results, key, _FAST, _SHORTEST))
        if measurement.endswith("p50") and to_shortest > 1.05:
            found.append(f"missed: {measurement}, {place}: {to_shortest:.3f} of the shortest path")
    return found


def render(results: Results) -> Table:
    """Return the table as text."""
    table = Table(title="medians; ratios with their 95% confidence intervals")
    for column in ("", "", _VETH, _BRIDGE, _SHORTEST, _FAST, "Fast/bridge", "Fast/shortest", "wanted"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for key in cells():
        measurement, place = key
        unit = "µs" if measurement[-3:] in ("p50", "p99") else "Gbit/s"
        table.add_row(
            f"{measurement} {unit}",
            place,
            *(
                f"{statistics.median(rounds_of(results, key, name)):.1f}"
                for name in (_VETH, _BRIDGE, _SHORTEST, _FAST)
            ),
            *(_spelt(ratios_of(results, key, _FAST, base)) for base in (_BRIDGE, _SHORTEST)),
            BETTER[measurement],
        )
    return table


def _spelt(ratios: list[float]) -> str:
    low, high = interval(ratios)
    return f"{statistics.median(ratios):.3f} ({low:.2f}-{high:.2f})"


def write(results: Results, out: Path, rounds: int) -> None:
    """Write datapath.json, with every round, and datapath.svg."""
    names = (_VETH, _BRIDGE, _SHORTEST, _FAST)
    ratios = {
        key: {name: statistics.median(ratios_of(results, key, name, _BRIDGE)) for name in names}
        for key in cells()
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "datapath.svg").write_text(plot(ratios, BETTER))
    listed = [
        {
            "measurement": key[0],
            "place": key[1],
            "rounds": {name: [round(value, 3) for value in rounds_of(results, key, name)] for name in names},
            "fast_to_bridge": round(statistics.median(ratios_of(results, key, _FAST, _BRIDGE)), 4),
            "fast_to_shortest": round(statistics.median(ratios_of(results, key, _FAST, _SHORTEST)), 4),
        }
        for key in cells()
    ]
    head = {
        "kernel": platform.release(),
        "rounds": rounds,
        "units": {"round trip": "us", "streams": "Gbit/s"},
    }
    (out / "datapath.json").write_text(
        json.dumps({**head, "cells": listed, "verdicts": verdicts(results)}, indent=1) + "\n"
    )


@click.command(help=__doc__.split("\n")[0])
@click.option("--rounds", default=5, show_default=True)
@click.option("--count", default=3000, show_default=True, help="Round trips at a time; five times a round.")
@click.option(
    "--megabytes", default=400, show_default=True, help="Megabytes sent at a time; five times a round."
)
@click.option(
    "--masquerade/--no-netfilter",
    default=True,
    help="Whether nodes masquerade, as the nodes of a cluster do.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Directory for datapath.json and datapath.svg.")
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
    Console(width=150).print(render(results))
    for verdict in verdicts(results):
        click.echo(verdict)
    if out is not None:
        write(results, out, rounds)


if __name__ == "__main__":
    main()
