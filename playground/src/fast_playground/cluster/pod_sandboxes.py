"""Finds the sandbox of a pod in the records on the nodes' disks. Does not ask the API server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fast.errors import FastError
from fast_playground.cluster.directory import StateDirectory
from fast_playground.cluster.init_client import InitGone
from fast_playground.cluster.node import LEAD_SESSION, Node, list_nodes
from fast_playground.cluster.processes import VARIABLE
from fast_playground.cluster.sandbox import RECORDS_DIR, Sandbox, SandboxRecords


class PodNotRunning(FastError):
    """No node of the playground has a sandbox of that pod."""


@dataclass(frozen=True)
class PlacedSandbox:
    """A sandbox and the node it is on."""

    node: Node
    sandbox: Sandbox

    @property
    def network(self) -> Path | None:
        """Path, from here, of its network namespace; None if the pod is on its node's network."""
        return self.node.path(self.sandbox.netns) if self.sandbox.netns else None

    def command(self, argv: list[str]) -> list[str]:
        """Return the command line that runs ``argv`` in the pod's network namespace, on the node's files."""
        return self.node.command(argv, network=self.network)

    def command_inside(self, argv: list[str], *, terminal: bool = False) -> list[str]:
        """Return the command line that runs ``argv`` in the pod: its network and its own root.

        Args:
            argv: The command, looked up on PATH in the pod.
            terminal: Its stdin is a terminal that no other process uses.
        """
        if terminal:
            argv = [*LEAD_SESSION, *argv]
        return self.node.command(argv, network=self.network, root=self.node.path(self.sandbox.root))

    def environment(self) -> dict[str, str]:
        """Return the environment for commands in the pod: of the caller's, only the terminal and the language."""
        kept = {key: os.environ[key] for key in ("TERM", "LANG") if key in os.environ}
        path = self.node.environment()["PATH"]
        mark = {VARIABLE: self.node.directory.name}
        return kept | mark | {"PATH": path, "HOME": "/root", "HOSTNAME": self.sandbox.name}


def find_sandboxes(directory: StateDirectory) -> list[PlacedSandbox]:
    """List the sandboxes of every node that runs."""
    found = []
    for node in list_nodes(directory):
        try:
            records = SandboxRecords(node.path(str(RECORDS_DIR))).read()
        except InitGone:
            continue
        found += [PlacedSandbox(node, sandbox) for sandbox in records]
    return found


def get_sandbox(directory: StateDirectory, namespace: str, name: str) -> PlacedSandbox:
    """Find a pod's sandbox; of several (the pod was created again elsewhere), the newest.

    Raises:
        PodNotRunning: There is none.
    """
    matching = [
        placed
        for placed in find_sandboxes(directory)
        if (placed.sandbox.namespace, placed.sandbox.name) == (namespace, name)
        and (not placed.sandbox.netns or placed.node.path(placed.sandbox.netns).exists())
    ]
    if not matching:
        raise PodNotRunning(
            f"pod {name} in namespace {namespace} does not run on any node of playground {directory.name}"
        )
    return max(matching, key=lambda placed: placed.sandbox.created_at)
