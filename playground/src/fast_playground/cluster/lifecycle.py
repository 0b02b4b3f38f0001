"""A playground as a whole: up, down, status. Decides the order of the steps; other modules carry them out."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from fast.cni.plugin_binary import find_plugin
from fast.errors import FastError, InvalidConfig
from fast_playground.cluster import node_programs
from fast_playground.cluster.api_setup import Cluster
from fast_playground.cluster.directory import UNDERLAY, Settings, StateDirectory, list_directories
from fast_playground.cluster.identities import Identities
from fast_playground.cluster.init_client import Control, InitGone, ProgramState
from fast_playground.cluster.node import Node, Place, Underlay, list_nodes
from fast_playground.cluster.pod_sandboxes import PlacedSandbox, find_sandboxes, get_sandbox
from fast_playground.cluster.processes import VARIABLE, find_playgrounds, kill_processes
from fast_playground.cluster.underlay import MAX_NODES, OUTSIDE, add_second_address, ensure_bridge, listen

API_PORT = 6443
_ROOT = "playground"
_START_SECONDS = 60.0
_POLL_SECONDS = 0.1
_MOST_STARTS = 5
_LOG_LINES = 15

Progress = Callable[[str], None]


@dataclass(frozen=True)
class ProgramStatus:
    """One program of a playground: its place, name and state."""

    place: str
    name: str
    state: ProgramState


class Playground:
    """One playground, up or not.

    Args:
        name: Playgrounds with different names can run side by side.
    """

    def __init__(self, name: str) -> None:
        self.directory = StateDirectory(name)
        self.name = name
        self.root = Control(self.directory.socket(_ROOT))
        self.underlay = Underlay(self.directory)
        self.cluster = Cluster(self.directory.kubeconfig)

    @property
    def is_up(self) -> bool:
        """Whether ``up`` has completed and the playground still runs."""
        if not self.directory.marked_up:
            return False
        try:
            self.root.status()
        except InitGone:
            return False
        return True

    @property
    def settings(self) -> Settings:
        """The settings it was started with; FastError if it is not up."""
        settings = self.directory.find_settings()
        if settings is None or not self.is_up:
            raise FastError(
                f"there is no playground {self.name}; make one: fast-ctl playground up --name {self.name}"
            )
        return settings

    # Up and down.

    def up(self, settings: Settings, progress: Progress = lambda _: None) -> None:
        """Bring the playground up and wait until every node is Ready. Removes first what a crashed one left.

        Args:
            settings: What to make.
            progress: Called with a text before each step.

        Raises:
            FastError: It is already up, or it did not come up. In the second case nothing is left of it.
        """
        _check(settings)
        with self.directory.locked():
            if self.is_up:
                raise FastError(
                    f"playground {self.name} is up already; take it down first: "
                    f"fast-ctl playground down --name {self.name}"
                )
            self._clean()
            try:
                self._up(settings, progress)
            except BaseException:
                self._clean()
                raise

    def down(self) -> bool:
        """Take the playground down: no process, namespace, mount, pin or file of it is left.

        Returns:
            Whether there was anything.
        """
        if not self.exists:
            return False
        with self.directory.locked():
            self._clean()
        return True

    @property
    def exists(self) -> bool:
        """Whether a directory or a process of it exists."""
        return self.directory.path.exists() or self.name in find_playgrounds()

    def _clean(self) -> None:
        kill_processes(self.name)
        self.directory.remove()

    def _up(self, settings: Settings, progress: Progress) -> None:
        self.directory.make()
        progress("starting the API server")
        self._start_root()
        self.underlay.boot(self.root)
        ensure_bridge(self.underlay.namespace, settings.mtu)
        identities = self._start_api_server()
        self._wait(lambda: "" if self.cluster.answers() else "the API server does not answer")
        progress("installing the CRDs and starting the controller")
        self.cluster.install(settings.pool)
        self._start_controller(identities)
        self.directory.write_settings(settings)
        for node in list_nodes(self.directory):
            progress(f"starting node {node.name} ({node.address})")
            self.boot(node, settings, identities)
        if settings.nodes:
            progress("waiting for the nodes to be Ready")
            self._wait(self._nodes_problem)
        self.directory.mark_up()

    def _start_root(self) -> None:
        """Start the playground's init, in its own session, so that it does not get the terminal's signals."""
        unshare = shutil.which("unshare") or "unshare"
        argv = [unshare, "--mount", "--pid", "--fork", "--kill-child=KILL", "--", sys.executable, "-I", "-m"]
        argv += [
            "fast_playground.cluster.init",
            "--socket",
            str(self.root.path),
            "--disks",
            str(self.directory.disks),
        ]
        log = self.directory.log(_ROOT)
        with log.open("ab") as stream:
            subprocess.Popen(
                argv,
                env=_clean_environment() | {VARIABLE: self.name},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.root.wait_ready(_START_SECONDS)
        except InitGone as error:
            raise FastError(
                f"the playground's init did not start: {log.read_text(errors='replace').strip()}"
            ) from error

    def _start_api_server(self) -> Identities:
        """Start the API server on the machine's loopback and on the underlay.

        Init keeps the sockets, so the addresses survive a crash of the server.
        """
        with (
            socket.create_server(("127.0.0.1", 0), backlog=1024) as host,
            listen(self.underlay.namespace, API_PORT) as underlay,
        ):
            port = host.getsockname()[1]
            identities = Identities(
                self.directory, f"https://127.0.0.1:{port}", f"https://{OUTSIDE}:{API_PORT}"
            )
            identities.write_admin()
            command = node_programs.api_server_command(self.directory)
            log = self.directory.log(f"{_ROOT}-{node_programs.API_SERVER}")
            descriptors = (host.fileno(), underlay.fileno())
            self.root.start(node_programs.API_SERVER, command, log=log, descriptors=descriptors)
        return identities

    def _start_controller(self, identities: Identities) -> None:
        """Start the controller on the underlay, so that its metrics port does not clash with another playground's."""
        environment = {"KUBECONFIG": str(identities.write_controller())}
        log = self.directory.log(f"{UNDERLAY}-{node_programs.CONTROLLER}")
        self.underlay.control.start(
            node_programs.CONTROLLER, node_programs.controller_command(), log=log, environment=environment
        )

    def boot(self, node: Node, settings: Settings, identities: Identities) -> None:
        """Start a node with its agent and kubelet. It keeps the disk of its earlier boots."""
        self._boot(node, settings)
        identities.write_agent(node.name, node.path(node_programs.AGENT_KUBECONFIG))
        identities.write_kubelet(node.name, node.path(node_programs.KUBELET_KUBECONFIG))
        self.start_agent(node)
        self.start_kubelet(node)

    def _boot(self, node: Node, settings: Settings) -> None:
        node.boot(self.root, self.underlay, settings.mtu)
        if settings.two_addresses:
            add_second_address(node.namespace, node.number)

    # Nodes and pods.

    def nodes(self) -> list[Node]:
        """Return the nodes, running or not."""
        return list_nodes(self.directory)

    def node(self, name: str) -> Node:
        """Return the node of that name; FastError if there is none."""
        for node in self.nodes():
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes()) or "none"
        raise FastError(f"playground {self.name} has no node {name!r} (its nodes: {known})")

    def place(self, name: str) -> Place:
        """Return a node, or the underlay by its name."""
        return self.underlay if name == UNDERLAY else self.node(name)

    def sandbox(self, namespace: str, name: str) -> PlacedSandbox:
        """Find a pod's sandbox; PodNotRunning if there is none."""
        return get_sandbox(self.directory, namespace, name)

    def sandboxes(self) -> list[PlacedSandbox]:
        """Return the sandboxes of every node."""
        return find_sandboxes(self.directory)

    def start_agent(self, node: Node) -> None:
        """Start a node's agent, which must not be running."""
        command = node_programs.agent_command(self.directory_settings)
        log = self.directory.log(f"{node.name}-{node_programs.AGENT}")
        node.control.start(
            node_programs.AGENT, command, log=log, environment=node_programs.agent_environment(node)
        )

    def start_kubelet(self, node: Node) -> None:
        """Start a node's kubelet, which must not be running."""
        log = self.directory.log(f"{node.name}-{node_programs.KUBELET}")
        environment = {"KUBECONFIG": node_programs.KUBELET_KUBECONFIG}
        node.control.start(
            node_programs.KUBELET,
            node_programs.kubelet_command(node, self.directory_settings),
            log=log,
            environment=environment,
        )

    def reboot(self, node: Node) -> None:
        """Cut a node's power and start it again: new boot id, empty /run and bpf filesystem, the same disk."""
        node.crash(self.root)
        self.power_on(node)

    def power_on(self, node: Node) -> None:
        """Start a node that is not running. It keeps its disk."""
        self._boot(node, self.settings)
        self.start_agent(node)
        self.start_kubelet(node)

    def wait_ready(self, timeout_seconds: float = _START_SECONDS) -> None:
        """Wait until every node is Ready; FastError, with the reasons and logs, if that takes too long."""
        self._wait(self._nodes_problem, timeout_seconds)

    # Status.

    def programs(self) -> list[ProgramStatus]:
        """Return every program of the places that run."""
        found = []
        places = [self.underlay, *self.nodes()]
        for place, control in [(_ROOT, self.root), *((item.name, item.control) for item in places)]:
            try:
                states = control.status()
            except InitGone:
                continue
            found += [ProgramStatus(place, name, state) for name, state in states.items()]
        return found

    @property
    def directory_settings(self) -> Settings:
        """The settings on disk, also while ``up`` is still running."""
        return self.directory.find_settings() or Settings()

    def _nodes_problem(self) -> str:
        nodes = self.cluster.ready_nodes()
        problems = {node.name: nodes.get(node.name, "is not registered yet") for node in self.nodes()}
        return "; ".join(f"{name}: {problem}" for name, problem in problems.items() if problem)

    def _wait(self, problem: Callable[[], str], timeout_seconds: float = _START_SECONDS) -> None:
        """Wait until there is no problem; fail at once if a program keeps ending."""
        deadline = time.monotonic() + timeout_seconds
        while said := _said(problem):
            failing = [item for item in self.programs() if _keeps_ending(item.state)]
            if failing or time.monotonic() > deadline:
                raise FastError(f"playground {self.name}: {said}{self._logs(failing or self.programs())}")
            time.sleep(_POLL_SECONDS)

    def _logs(self, failing: list[ProgramStatus]) -> str:
        """Return the last lines of the programs' logs."""
        texts = []
        for item in failing:
            log = self.directory.log(f"{item.place}-{item.name}")
            if log.exists() and (lines := log.read_text(errors="replace").splitlines()[-_LOG_LINES:]):
                texts.append("\n".join([f"\n--- {item.place} {item.name}: {item.state}", *lines]))
        return "".join(texts)


def list_playgrounds() -> list[str]:
    """List the names of all playgrounds of this machine, also of crashed ones."""
    return sorted(list_directories() | find_playgrounds())


def fresh_name(prefix: str) -> str:
    """Return a name that no playground has, for tests that run side by side."""
    return f"{prefix}-{secrets.token_hex(3)}"


def _said(problem: Callable[[], str]) -> str:
    try:
        return problem()
    except FastError as error:
        return str(error)


def _keeps_ending(state: ProgramState) -> bool:
    gone_for_good = state.pid is None and not state.restarts and state.exit_status is not None
    return state.starts >= _MOST_STARTS or gone_for_good


def _check(settings: Settings) -> None:
    if os.geteuid() != 0:
        raise InvalidConfig("a playground makes namespaces and loads eBPF programs: run it as root")
    if os.environ.get(VARIABLE):
        raise InvalidConfig("this is inside a playground; another one has to be started outside of it")
    if not 0 <= settings.nodes <= MAX_NODES:
        raise InvalidConfig(f"a playground has 0 to {MAX_NODES} nodes, not {settings.nodes}")
    if settings.nodes:
        find_plugin()


def _clean_environment() -> dict[str, str]:
    """Return this process's environment without variables that change the programs' defaults."""
    dropped = ("KUBECONFIG", "NODE_NAME", "KUBERNETES_", "PYTHON")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return {key: value for key, value in kept.items() if not key.startswith("FAST_")}
