"""How long ADD and DEL take, exec to exit: Fast beside the reference plugins bridge and ptp with host-local.

Runs a playground of one node; all plugins are called there, in rounds that are interleaved. Fast's times include
everything: the claim at the embedded API server, the veth, programs and map entries. The table gives medians over the
rounds, and ratios to Fast; needs root.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import click

from fast.api.ips import Ips, IpsSpec
from fast.api.meta import ObjectMeta
from fast.api.resources import IPSES
from fast.kube import ClusterConfig, KubeClient
from fast_playground.cluster.directory import Settings
from fast_playground.cluster.lifecycle import Playground, fresh_name
from fast_playground.cluster.node import Node

RUNNER = Path(__file__).with_name("runner.py")
HOST_LOCAL = {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}]}
PLUGINS: dict[str, tuple[str, dict[str, Any]]] = {
    "fast": ("/opt/cni/bin/fast-cni", {}),
    "bridge": (
        "/usr/lib/cni/bridge",
        {"bridge": "cni0", "isGateway": True, "ipam": HOST_LOCAL | {"subnet": "10.88.0.0/16"}},
    ),
    "ptp": ("/usr/lib/cni/ptp", {"ipam": HOST_LOCAL | {"subnet": "10.89.0.0/16"}}),
}
Figures = dict[str, float]


async def make_pool(kubeconfig: Path) -> None:
    """Create the pool ``default-ips``, which containers without a pod use."""
    async with KubeClient(ClusterConfig.load(kubeconfig), user_agent="fast-bench") as client:
        spec = IpsSpec(subnet="10.244.0.0/16", ips=("10.244.10.0-10.244.90.0",))
        await client.create(IPSES, Ips(metadata=ObjectMeta(name="default-ips"), spec=spec))


def run(node: Node, plugin: str, round_number: int, pods: int, parallel: int) -> dict[str, Any]:
    """Run one round of one plugin on the node."""
    binary, config = PLUGINS[plugin]
    config = {"cniVersion": "1.0.0", "name": plugin, "type": Path(binary).name} | config
    job = {"binary": binary, "config": json.dumps(config), "run": f"{round_number}-{parallel}"}
    job |= {"pods": pods, "parallel": parallel}
    done = node.run(sys.executable, str(RUNNER), json.dumps(job))
    if done.returncode != 0:
        raise click.ClickException(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def figures(alone: dict[str, Any], together: dict[str, Any]) -> Figures:
    """Return the figures of one round."""
    found: Figures = {}
    for verb in ("ADD", "DEL"):
        cuts = statistics.quantiles(alone[verb], n=100, method="inclusive")
        found |= {f"{verb} p50 ms": cuts[49], f"{verb} p99 ms": cuts[98]}
        found[f"{verb}/s, parallel"] = together["pods_a_second"][verb]
    return found


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds, of every plugin in turn.")
@click.option("--pods", default=40, show_default=True, help="Pods in a round.")
@click.option(
    "--parallel", default=8, show_default=True, help="How many calls run at once in the parallel part."
)
def main(rounds: int, pods: int, parallel: int) -> None:
    """Compare, and print a table."""
    playground = Playground(fresh_name("bench"))
    results: dict[str, list[Figures]] = {plugin: [] for plugin in PLUGINS}
    try:
        playground.up(Settings(nodes=1))
        asyncio.run(make_pool(playground.directory.kubeconfig))
        node = playground.node("n1")
        for number in range(rounds + 1):
            for plugin, found in results.items():
                alone = run(node, plugin, number, pods, 1)
                together = run(node, plugin, number, pods, parallel)
                if number:  # the first round warms up
                    found.append(figures(alone, together))
    finally:
        playground.down()
    show(results)


def show(results: dict[str, list[Figures]]) -> None:
    """Print the medians, and the ratios to Fast's."""
    medians = {
        plugin: {key: statistics.median(item[key] for item in found) for key in found[0]}
        for plugin, found in results.items()
    }
    click.echo(f"{'':18}" + "".join(f"{plugin:>18}" for plugin in medians))
    for key, of_fast in medians["fast"].items():
        cells = (f"{of[key]:.1f} ({of[key] / of_fast:.2f})" for of in medians.values())
        click.echo(f"{key:18}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
