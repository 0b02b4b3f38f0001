"""What the commands that ask the API server share: the option that says where it is, and one run of a client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from fast.kube import KubeClient

R = TypeVar("R")

#: The ``--kubeconfig`` option.
kubeconfig_option = click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The way to the API server.  [default: KUBECONFIG, else in-cluster, else ~/.kube/config]",
)


def with_cluster(kubeconfig: Path | None, work: Callable[[KubeClient], Awaitable[R]]) -> R:
    """Run ``work`` with a client of the cluster, and give what it gives.

    Raises:
        InvalidConfig: There is no way to an API server.
        KubeError: What ``work`` raises.
    """
    from fast.kube import ClusterConfig, KubeClient

    async def run() -> R:
        async with KubeClient(ClusterConfig.load(kubeconfig), user_agent="fast-ctl") as client:
            return await work(client)

    return asyncio.run(run())
