"""What the commands that ask the API server share: the option that says where it is, and one run of a client."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from fast.kube import KubeClient

R = TypeVar("R")

#: The kubeconfig's context to use instead of its current one, and whom to impersonate: set by ``kubectl fast``.
CONTEXT_VARIABLE, AS_VARIABLE = "FAST_KUBE_CONTEXT", "FAST_KUBE_AS"

#: The agent's own, where it is no pod.
_AGENT_KUBECONFIG = Path("/etc/fast/agent.kubeconfig")

#: The ``--kubeconfig`` option.
kubeconfig_option = click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The way to the API server.  [default: KUBECONFIG, else the agent's own on this node"
    " (/etc/fast/agent.kubeconfig), else in-cluster, else ~/.kube/config]",
)


def with_cluster(kubeconfig: Path | None, work: Callable[[KubeClient], Awaitable[R]]) -> R:
    """Run ``work`` with a client of the cluster, and give what it gives.

    Raises:
        InvalidConfig: There is no way to an API server.
        KubeError: What ``work`` raises.
    """
    import structlog

    from fast.kube import ClusterConfig, KubeClient

    # stdout is for the answer alone
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    config = ClusterConfig.load(resolve_kubeconfig(kubeconfig), context=os.environ.get(CONTEXT_VARIABLE, ""))
    config.impersonate = os.environ.get(AS_VARIABLE, "")

    async def run() -> R:
        async with KubeClient(config, user_agent="fast-ctl") as client:
            return await work(client)

    return asyncio.run(run())


def resolve_kubeconfig(kubeconfig: Path | None) -> Path | None:
    """Give the kubeconfig to use: the one named, else KUBECONFIG's first, else the agent's own; None for others."""
    if kubeconfig is not None:
        return kubeconfig
    if "KUBECONFIG" in os.environ:
        first = os.environ["KUBECONFIG"].split(":")[0]
        return Path(first) if first and ":" not in os.environ["KUBECONFIG"] else None
    return _AGENT_KUBECONFIG if _AGENT_KUBECONFIG.exists() else None
