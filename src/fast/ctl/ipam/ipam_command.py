"""``fast-ctl ipam``: pools, the owner of an address, what garbage collection would free, and the audit. Prints only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fast.ctl.api_options import kubeconfig_option, with_cluster
from fast.ctl.node.map_options import on_this_node
from fast.ctl.output import Column, output_option, print_rows
from fast.ctl.printable import printable
from fast.datapath.bpf_dir import bpf_dir_option
from fast.errors import FastError

if TYPE_CHECKING:
    from fast.ipam.explain.drift import Drift
    from fast.ipam.explain.why import Explanation
    from fast.ipam.release.controller_sweep import Outcome, SweepPlan
    from fast.kube import KubeClient
    from fast.net.node_state import NodeState

_LOOK_AGAIN_SECONDS = 2.0


def _or_unknown(value: Any) -> str:
    return "?" if value is None else str(value)


_POOLS = (
    Column("POOL", "pool"),
    Column("SUBNET", "subnet"),
    Column("TOTAL", "total"),
    Column("BOUND", "bound"),
    Column("FREE", "free"),
    Column("COOLING", "cooling", spell=_or_unknown),
    Column("RETAINED", "retained"),
    Column("OUTSIDE", "outside", wide=True),
    Column("PROBLEM", "problem", wide=True),
)
_DRIFT = (
    Column("NODE", "node", spell=lambda name: name or "<cluster>"),
    Column("KIND", "kind"),
    Column("ADDRESS", "address"),
    Column("WHAT", "what"),
)
_FREED = (
    Column("ADDRESS", "address"),
    Column("POOL", "pool"),
    Column("POD", "pod"),
    Column("NODE", "node"),
    Column("ACTION", "action"),
    Column("RULE", "rule"),
    Column("POD-UID", "podUID", wide=True),
    Column("EVIDENCE", "evidence", wide=True),
)


@click.group()
def ipam() -> None:
    """Explain the addresses of the cluster, and compare what knows of them."""


@ipam.command()
@kubeconfig_option
@click.option(
    "--agent-metrics",
    default="http://127.0.0.1:9095/metrics",
    envvar="FAST_AGENT_METRICS",
    show_default=True,
    show_envvar=True,
    help="This node's agent, which alone knows what cools; if it does not answer, COOLING is '?' (null).",
)
@output_option
def pools(kubeconfig: Path | None, agent_metrics: str, output: str) -> None:
    """Show the pools: their bound, retained and free addresses, and how many of the free ones cool."""
    from fast.ctl.ipam.pools_command import cooling_of_agent, pool_rows
    from fast.ipam.store.snapshot import read_snapshot

    snapshot = with_cluster(kubeconfig, lambda client: read_snapshot(client, pods=False))
    rows = pool_rows(snapshot, cooling_of_agent(agent_metrics))
    print_rows(rows, _POOLS, output, nothing="There are no pools (Ips).")


@ipam.command()
@click.option("--dry-run", is_flag=True, help="Say what would be freed and why; free nothing.")
@click.option("--held", is_flag=True, help="Also free what the breaker holds back.")
@kubeconfig_option
@output_option
@click.pass_context
def gc(ctx: click.Context, dry_run: bool, held: bool, kubeconfig: Path | None, output: str) -> None:
    """Free what nobody answers for any more, by the controller's rules; with --dry-run, only say what that is.

    Exit status 1 if the breaker holds addresses back, or the API server refuses to free some.
    """

    async def sweep(client: KubeClient) -> tuple[SweepPlan, Outcome]:
        from fast.ipam import KubeStore
        from fast.ipam.release.circuit_breaker import CircuitBreaker
        from fast.ipam.release.controller_sweep import Outcome, carry_out, plan_sweep
        from fast.ipam.store.live_reads import NAMESPACE, one_look
        from fast.ipam.store.snapshot import read_snapshot

        snapshot, cluster = await read_snapshot(client, pods=False), await one_look(client, NAMESPACE)
        plan = await plan_sweep(snapshot.records.values(), cluster, None if held else CircuitBreaker())
        if dry_run:
            return plan, Outcome(freed=plan.to_free)
        return plan, await carry_out(plan, KubeStore(client), cluster, lambda _: None)

    plan, outcome = with_cluster(kubeconfig, sweep)
    rows = [
        {
            "address": finding.record.metadata.name,
            "pool": finding.record.spec.pool,
            "pod": f"{finding.record.spec.pod.namespace}/{finding.record.spec.pod.name}",
            "podUID": finding.record.spec.pod.uid,
            "node": finding.record.spec.node,
            "action": finding.decision.action.value,
            "rule": finding.decision.rule,
            "evidence": finding.decision.evidence,
        }
        for finding in outcome.freed
    ]
    print_rows(rows, _FREED, output, nothing=f"Nothing to free: {plan.total} records looked at.")
    for text in sorted({finding.decision.evidence for finding in plan.held}):
        click.echo(printable(f"The breaker holds addresses back: {text}. --held frees them."), err=True)
    for record, error in outcome.refused:
        click.echo(printable(f"{record.metadata.name} was not freed: {error}"), err=True)
    if plan.held or outcome.refused:
        ctx.exit(1)


@ipam.command()
@click.argument("what", metavar="ADDRESS|POD")
@click.option("-n", "--namespace", default="default", show_default=True, help="Of the pod.")
@kubeconfig_option
@bpf_dir_option
@click.option(
    "--node", default=on_this_node, show_default="this node", help="The Node whose kernel is looked at."
)
@output_option
def why(what: str, namespace: str, kubeconfig: Path | None, bpf_dir: Path, node: str, output: str) -> None:
    """Say who holds an address, on which evidence, its known history, and which rule keeps or frees it.

    POD is NAME or NAMESPACE/NAME. On the address's own node its sandbox is looked at, too.
    """
    from fast.ctl.ipam.why_command import explain_all, explanation_row, explanation_text

    here = _node_state(bpf_dir)
    found: list[Explanation] = with_cluster(
        kubeconfig, lambda client: explain_all(client, what, namespace, node, here)
    )
    if output in ("json", "yaml"):
        print_rows([explanation_row(item) for item in found], (), output, nothing="")
    else:
        click.echo("\n\n".join(explanation_text(item) for item in found))


@ipam.command()
@kubeconfig_option
@bpf_dir_option
@click.option(
    "--node", default=on_this_node, show_default="this node", help="The Node whose kernel is looked at."
)
@click.option("--cluster-only", is_flag=True, help="Compare records and pods only; needs no node.")
@output_option
@click.pass_context
def audit(
    ctx: click.Context, kubeconfig: Path | None, bpf_dir: Path, node: str, cluster_only: bool, output: str
) -> None:
    """Compare records with pods and, on a node, with its sandboxes and eBPF maps.

    A difference counts if two looks, two seconds apart, find it. Exit status 1 if there is one.
    """
    if not cluster_only and _node_state(bpf_dir) is None:
        raise FastError(
            f"there are no eBPF maps of Fast in {bpf_dir}/maps: not on a node? --cluster-only compares without one"
        )

    async def compare(client: KubeClient) -> list[tuple[str, Drift]]:
        from fast.ctl.ipam.audit_command import look_twice

        return await look_twice(
            client, "" if cluster_only else node, lambda: _node_state(bpf_dir), _LOOK_AGAIN_SECONDS
        )

    found = with_cluster(kubeconfig, compare)
    rows = [
        {"node": where, "kind": drift.kind.value, "address": drift.address, "what": drift.text}
        for where, drift in found
    ]
    print_rows(rows, _DRIFT, output, nothing="No drift.")
    if rows:
        ctx.exit(1)


def _node_state(bpf_dir: Path) -> NodeState | None:
    """Read this node's kernel; None if Fast has no maps here."""
    from fast.datapath.node.state_reading import read_node_state

    maps = bpf_dir / "maps"
    return read_node_state(maps) if (maps / "fast_local_pods").exists() else None
