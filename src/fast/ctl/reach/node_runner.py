"""The ways to run a command on a node: here, in a playground, or by the API server's exec in the node's agent pod."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fast.errors import FastError, KubeError

if TYPE_CHECKING:
    from fast.kube import KubeClient

#: Where playgrounds keep their kubeconfig: below it, in a directory of the playground's name.
PLAYGROUNDS = Path("/run/fast-playground")
AGENT_SELECTOR = "app.kubernetes.io/name=fast-agent"
AGENT_CONTAINER = "agent"
AT_ONCE = 8
SECONDS_PER_NODE = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did on a node; ``unreachable`` says why it was not run there, and is empty if it was."""

    status: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    unreachable: str = ""


class NodeRunner(Protocol):
    """Runs ``fast-ctl`` on a node."""

    async def run(self, node: str, arguments: Sequence[str]) -> Outcome:
        """Run ``fast-ctl`` with these arguments on the node. Never raises FastError: see ``Outcome.unreachable``."""


class LocalRunner:
    """Runs commands on this node, whatever its name."""

    async def run(self, node: str, arguments: Sequence[str]) -> Outcome:
        """See :class:`NodeRunner`."""
        return await _spawn([sys.executable, "-m", "fast.ctl.fast_ctl", *arguments])


class PlaygroundRunner:
    """Runs commands on the nodes of a playground on this machine.

    Args:
        name: The playground's.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    async def run(self, node: str, arguments: Sequence[str]) -> Outcome:
        """See :class:`NodeRunner`."""
        program = str(Path(sys.executable).with_name("fast-ctl"))
        prefix = [program, "playground", "node", "--name", self._name, node, "--", program]
        return await _spawn([*prefix, *arguments])


class ExecRunner:
    """Runs commands in the nodes' agent pods, by the API server's exec.

    Args:
        client: With the caller's own rights.
        pods: Namespace and name of each node's agent pod, by the node's name.
    """

    def __init__(self, client: KubeClient, pods: Mapping[str, tuple[str, str]]) -> None:
        self._client = client
        self._pods = pods

    async def run(self, node: str, arguments: Sequence[str]) -> Outcome:
        """See :class:`NodeRunner`."""
        from fast.kube.pod_exec import exec_in_pod

        pod = self._pods.get(node)
        if pod is None:
            return Outcome(unreachable=f"no fast-agent pod runs on node {node}")
        try:
            done = await exec_in_pod(self._client, *pod, ["fast-ctl", *arguments], container=AGENT_CONTAINER)
        except KubeError as error:
            return Outcome(unreachable=str(error))
        return Outcome(done.status, done.stdout, done.stderr)


async def run_on_nodes(
    runner: NodeRunner,
    nodes: Sequence[str],
    arguments: Sequence[str],
    *,
    at_once: int = AT_ONCE,
    seconds: float = SECONDS_PER_NODE,
) -> dict[str, Outcome]:
    """Run the same command on several nodes, some at once; gives the outcomes in the order of the nodes.

    Args:
        runner: The way to the nodes.
        nodes: Their names.
        arguments: Of ``fast-ctl``.
        at_once: How many nodes at a time.
        seconds: How long one node may take; after that it counts as unreachable.
    """
    places = asyncio.Semaphore(at_once)

    async def run_on(node: str) -> Outcome:
        async with places:
            try:
                async with asyncio.timeout(seconds):
                    return await runner.run(node, arguments)
            except TimeoutError:
                return Outcome(unreachable=f"no answer in {seconds:g} s")

    outcomes = await asyncio.gather(*map(run_on, nodes))
    return dict(zip(nodes, outcomes, strict=True))


def find_playground(kubeconfig: Path | None) -> str:
    """Name the playground that a kubeconfig belongs to; empty if it is no playground's."""
    if kubeconfig is None:
        return ""
    path = kubeconfig.resolve()
    return path.parent.name if path.parent.parent == PLAYGROUNDS else ""


async def _spawn(argv: Sequence[str]) -> Outcome:
    if shutil.which(argv[0]) is None:
        raise FastError(f"there is no program {argv[0]}")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    try:
        stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Outcome(process.returncode or 0, stdout, stderr)
