"""Breaks a case of the table, and undoes what was broken."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from fast.errors import FastError, NotFound
from fast_playground.cluster.pod_sandboxes import PlacedSandbox
from fast_playground.cluster.training.fault_cases import CASES, Case, Object
from fast_playground.cluster.training.journal import (
    Broken,
    Journal,
    ObjectUndo,
    ProgramUndo,
    ScriptUndo,
    Undo,
)
from fast_playground.cluster.training.steering import Steering

if TYPE_CHECKING:
    from fast_playground.cluster.lifecycle import Playground

log = structlog.get_logger()


class Breaker:
    """Breaks and undoes cases, and keeps the journal. Use it from one caller at a time.

    Args:
        playground: One that is up.
    """

    def __init__(self, playground: Playground) -> None:
        self._playground = playground
        self._steering = Steering(playground)
        self.journal = Journal(playground.directory.path)

    def break_(self, name: str, target: str = "", namespace: str = "default") -> Broken:
        """Break a case.

        Args:
            name: Of the case.
            target: A node, or a pod if the case breaks a pod; empty: the first.
            namespace: The pod's.

        Raises:
            FastError: There is no such case or target, it is already broken, or breaking failed.
        """
        case = CASES.get(name)
        if case is None:
            raise FastError(f"there is no case {name!r}: fast-ctl playground break --list")
        node, pod = self._place(case, target, namespace)
        where = f"{pod.sandbox.namespace}/{pod.sandbox.name}" if pod else node if case.at != "cluster" else ""
        if any(item.case == name and item.where == where for item in self.journal.read()):
            raise FastError(f"{name} is broken already; undo it: fast-ctl playground mend {name}")
        undo: list[Undo] = []
        try:
            self._break(case, node, pod, undo.append)
        finally:
            broken = Broken(name, where, undo)
            if undo:
                self.journal.write([*self.journal.read(), broken])
        return broken

    def cut(self, target: str) -> None:
        """Unplug a node from the network between the nodes."""
        node = self._playground.node(target)
        script = f"ip link set {node.name} "
        self._run(self._playground.underlay.name, "", script + "down", node.name)
        undo = ScriptUndo(self._playground.underlay.name, "", script + "up")
        self.journal.write([*self.journal.read(), Broken("cut", node.name, [undo])])

    def mend(self, name: str = "") -> list[Broken]:
        """Undo one case, or all; return what was undone. A fault that cannot be undone is logged and forgotten."""
        faults = self.journal.read()
        chosen = [item for item in faults if name in ("", item.case)]
        if name and not chosen:
            raise FastError(
                f"{name} is not broken; what is: {', '.join(item.case for item in faults) or 'nothing'}"
            )
        for item in reversed(chosen):
            for step in reversed(item.undo):
                try:
                    self._undo(step)
                except (
                    FastError
                ) as error:  # a pod that is gone, a node that was rebooted: nothing is left to undo
                    log.warning("cannot be undone", case=item.case, where=item.where, error=str(error))
        self.journal.write([item for item in faults if item not in chosen])
        return chosen

    def _place(self, case: Case, target: str, namespace: str) -> tuple[str, PlacedSandbox | None]:
        """Return the node's name, and the pod if the case breaks a pod."""
        if case.at != "pod":
            nodes = self._playground.nodes()
            if not nodes:
                raise FastError("the playground has no node")
            return (self._playground.node(target) if target else nodes[0]).name, None
        if target:
            pod = self._playground.sandbox(namespace, target)
        else:
            pods = [item for item in self._playground.sandboxes() if item.sandbox.netns]
            if not pods:
                raise FastError("there is no pod to break: kubectl create deployment web --image=busybox")
            pod = pods[0]
        return pod.node.name, pod

    def _break(self, case: Case, node: str, pod: PlacedSandbox | None, undo: Callable[[Undo], None]) -> None:
        if case.program:
            program = case.program.format(node=node)
            undo(ProgramUndo(program))
            (self._steering.hang if case.hangs else self._steering.stop)(program)
        if case.script:
            place = self._playground.underlay.name if case.at == "underlay" else node
            netns = pod.sandbox.netns if pod else ""
            undo(ScriptUndo(place, netns, self._run(place, netns, case.script, node)))
        for obj in case.objects:
            made = _filled(obj, node)
            meta = made["metadata"]
            self._playground.cluster.create(made)
            undo(ObjectUndo(made["kind"], meta.get("namespace", ""), meta["name"]))

    def _undo(self, step: Undo) -> None:
        match step:
            case ScriptUndo(place, netns, script):
                self._run(place, netns, script, place)
            case ProgramUndo(target):
                self._steering.start(target)
            case ObjectUndo(kind, namespace, name):
                try:
                    self._playground.cluster.delete(kind, namespace, name)
                except NotFound:
                    return

    def _run(self, place: str, netns: str, script: str, node: str) -> str:
        """Run a script in a place; return its output. If it fails, FastError has its message."""
        at = self._playground.place(place)
        network = at.path(netns) if netns else None
        try:
            done = at.run("sh", "-c", f"NODE={node}; {script}", network=network, timeout=30)
        except subprocess.TimeoutExpired as error:
            raise FastError(f"a script on {place} does not end: {script}") from error
        if done.returncode:
            raise FastError(f"on {place}: {(done.stderr or done.stdout).strip()}")
        return done.stdout.strip()


def _filled(value: Object, node: str) -> Object:
    """Replace ``{node}`` in an object's texts."""

    def fill(item: object) -> object:
        if isinstance(item, dict):
            return {key: fill(entry) for key, entry in item.items()}
        if isinstance(item, list):
            return [fill(entry) for entry in item]
        return item.replace("{node}", node) if isinstance(item, str) else item

    filled = fill(value)
    assert isinstance(filled, dict)
    return filled
