"""Stopping, starting, crashing and hanging programs and nodes, by what a user calls them: ``n1``, ``n1/agent``."""

from __future__ import annotations

import signal

from fast.errors import FastError
from fast_playground.cluster.init_client import Control
from fast_playground.cluster.lifecycle import Playground
from fast_playground.cluster.node import Node
from fast_playground.cluster.node_programs import API_SERVER, CONTROLLER


class Steering:
    """The programs and nodes of a playground that is up.

    Args:
        playground: Which.
    """

    def __init__(self, playground: Playground) -> None:
        self._playground = playground

    def stop(self, target: str) -> None:
        """End a program (SIGTERM), or a node after its programs; it stays down until started."""
        node = self._find_node(target)
        for control, name in self._programs(target):
            control.kill(name, signal.SIGCONT)
            control.stop(name)
        if node is not None:
            node.crash(self._playground.root)

    def crash(self, target: str) -> None:
        """Kill a program (SIGKILL), which init starts again, or cut a node's power, which stays off."""
        node = self._find_node(target)
        if node is not None:
            node.crash(self._playground.root)
            return
        for control, name in self._programs(target):
            control.kill(name)

    def hang(self, target: str) -> None:
        """Stop a program (SIGSTOP), or all programs of a node, until started."""
        for control, name in self._programs(target):
            control.kill(name, signal.SIGSTOP)

    def start(self, target: str) -> None:
        """Continue or start a program, or power a node on."""
        node = self._find_node(target)
        if node is not None and not node.running:
            self._playground.power_on(node)
            return
        for control, name in self._programs(target, running=False):
            if control.status()[name].pid is None:
                control.start_again(name)
            else:
                control.kill(name, signal.SIGCONT)

    def reboot(self, target: str) -> None:
        """Cut a node's power and switch it on again."""
        node = self._find_node(target)
        if node is None:
            raise FastError(f"{target} is not a node; to restart a program: crash {target}")
        if node.running:
            node.crash(self._playground.root)
        self._playground.power_on(node)

    def _find_node(self, target: str) -> Node | None:
        return next((node for node in self._playground.nodes() if node.name == target), None)

    def _programs(self, target: str, *, running: bool = True) -> list[tuple[Control, str]]:
        """Return the control and the name of a target's programs; FastError if there is none."""
        place, _, program = target.rpartition("/")
        if target == API_SERVER:
            control, names = self._playground.root, [API_SERVER]
        elif target == CONTROLLER:
            control, names = self._playground.underlay.control, [CONTROLLER]
        else:
            control = self._playground.node(place or target).control
            states = control.status()
            names = [name for name in states if program in (name, target)]
            if running and place == "":
                names = [name for name in names if states[name].pid is not None]
        if not names:
            raise FastError(
                f"there is no program {target}; examples: n1/agent, n1/kubelet, {CONTROLLER}, {API_SERVER}"
            )
        return [(control, name) for name in names]
