"""A plugin to be tested, and a runtime that calls it as the CNI specification says. No assertions.

The suite knows of a plugin only what a :class:`Plugin` says; what differs between plugins belongs there.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from fast_playground.cluster.node import Node

#: Of the specification, oldest first: those whose results the suite knows.
VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
NETWORK = "fast"  # Fast heeds a GC of its own network only

Json = dict[str, Any]


@dataclass(frozen=True)
class Plugin:
    """What the suite is told about a plugin.

    Attributes:
        name: In the tests' ids.
        node: The playground's node on which it is installed.
        binary: Path of the executable on the node.
        versions: Those of :data:`VERSIONS` that it speaks; a test holds that VERSION says the same.
        config: Its network configuration, but for ``cniVersion``, ``name`` and ``type``.
        reservations: Shell command that prints the addresses held for the container ``$1``, one a line.
        setup: Shell command that is run once on the node, before the first call.
        deviations: Tests that it is known to fail, with the reason. One that passes is an error.
    """

    name: str
    node: str
    binary: str
    versions: tuple[str, ...]
    config: Json
    reservations: str
    setup: str = "true"
    deviations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a call came to."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What was printed, which must be JSON."""
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Sandbox:
    """A container with a network namespace, of the name ``netns``."""

    container_id: str
    netns: str

    @property
    def path(self) -> str:
        """Of the namespace, on the node."""
        return f"/run/netns/{self.netns}"


class Runtime:
    """Calls one plugin in one version of the specification.

    Args:
        plugin: Which.
        version: Of the specification.
        node: Where it is installed.
    """

    def __init__(self, plugin: Plugin, version: str, node: Node) -> None:
        self.plugin = plugin
        self.version = version
        self.node = node
        self._argv = node.command([plugin.binary])
        self._environment = {
            key: value for key, value in node.environment().items() if not key.startswith("CNI_")
        }

    def config(self, **changes: Any) -> Json:
        """Give the configuration; of the changes, None takes a field away."""
        kind = self.plugin.binary.rpartition("/")[2]
        written = {"cniVersion": self.version, "name": NETWORK, "type": kind, **self.plugin.config, **changes}
        return {key: value for key, value in written.items() if value is not None}

    def start(self, command: str | None, sandbox: Sandbox | None = None, **variables: str | None):
        """Start a call; its standard input waits for the configuration. None takes a variable away."""
        directory, _, _ = self.plugin.binary.rpartition("/")
        chosen: dict[str, str | None] = {"CNI_COMMAND": command, "CNI_PATH": directory}
        if sandbox is not None:
            chosen |= {
                "CNI_CONTAINERID": sandbox.container_id,
                "CNI_NETNS": sandbox.path,
                "CNI_IFNAME": "eth0",
            }
        chosen |= variables
        environment = self._environment | {key: value for key, value in chosen.items() if value is not None}
        pipe = subprocess.PIPE
        return subprocess.Popen(self._argv, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def call(
        self,
        command: str | None,
        sandbox: Sandbox | None = None,
        config: Json | str | None = None,
        **variables: str | None,
    ) -> Answer:
        """Call the plugin to its end.

        Args:
            command: The verb; None leaves CNI_COMMAND out.
            sandbox: For which container, where the verb has one.
            config: Default: :meth:`config`.
            variables: Changes to the environment; None takes one away.
        """
        text = config if isinstance(config, str) else json.dumps(self.config() if config is None else config)
        with self.start(command, sandbox, **variables) as process:
            stdout, stderr = process.communicate(text, timeout=60)
        return Answer(process.returncode, stdout, stderr)

    def kill_during(self, command: str, sandbox: Sandbox, after_seconds: float) -> None:
        """Start a call, and SIGKILL the plugin a moment after it was given its configuration."""
        with self.start(command, sandbox) as process:
            # the plugin is nsenter's child: in the node's process namespace it has another number
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            with suppress(ProcessLookupError, FileNotFoundError):
                while not (found := children.read_text().split()) and process.poll() is None:
                    time.sleep(0.0005)
                process.stdin.write(json.dumps(self.config()))
                process.stdin.close()
                time.sleep(after_seconds)
                for child in found:
                    os.kill(int(child), signal.SIGKILL)
            process.wait(timeout=60)

    def add(self, sandbox: Sandbox, config: Json | None = None, **variables: str | None) -> Json:
        """ADD, which must succeed; gives the result."""
        answer = self.call("ADD", sandbox, config, **variables)
        assert answer.status == 0, answer
        return answer.json

    def delete(self, sandbox: Sandbox, config: Json | None = None, **variables: str | None) -> None:
        """DEL, which must succeed."""
        answer = self.call("DEL", sandbox, config, **variables)
        assert answer.status == 0, answer

    def check(self, sandbox: Sandbox, previous: Json, **variables: str | None) -> Answer:
        """CHECK against the result of an ADD."""
        return self.call("CHECK", sandbox, self.config(prevResult=previous), **variables)

    def reservations(self, container_id: str) -> list[str]:
        """Give the addresses that the plugin's IPAM holds for a container."""
        done = self.node.run("sh", "-c", self.plugin.reservations, "sh", container_id)
        return done.stdout.split()

    def inside(self, sandbox: Sandbox, *arguments: str) -> Any:
        """``ip -j …`` in a sandbox."""
        done = self.node.run("ip", "-n", sandbox.netns, "-j", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout or "[]")

    def interfaces(self, sandbox: Sandbox) -> dict[str, Json]:
        """Give a sandbox's interfaces with their addresses, by name; without the loopback."""
        found = self.inside(sandbox, "address", "show")
        return {item["ifname"]: item for item in found if item.get("ifname", "lo") != "lo"}

    def devices(self) -> set[str]:
        """Give the names of the node's own veth devices."""
        done = self.node.run("ip", "-j", "link", "show", "type", "veth")
        return {item["ifname"] for item in json.loads(done.stdout or "[]") if "ifname" in item}

    def wait_for_devices(self, expected: set[str]) -> None:
        """Wait until the node has exactly these: a kernel takes a moment to end a namespace."""
        deadline = time.monotonic() + 10
        while (found := self.devices()) != expected:
            assert time.monotonic() < deadline, f"devices are {found}, not {expected}"
            time.sleep(0.05)

    @contextmanager
    def sandbox(self):
        """Make a container; at the end it is deleted, whatever was done with it."""
        made = Sandbox(f"c{uuid4().hex}", f"c-{uuid4().hex[:8]}")
        self.node.run("ip", "netns", "add", made.netns, check=True)
        try:
            yield made
        finally:
            for ifname in ("eth0", "net1"):
                self.call("DEL", made, CNI_IFNAME=ifname)
            self.node.run("ip", "netns", "delete", made.netns)
