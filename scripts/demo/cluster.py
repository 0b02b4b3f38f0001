"""Runs the demo's commands: shows those that a user types, hides the queries of its checks."""

from __future__ import annotations

import ipaddress
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from checks import WAIT_SECONDS, DemoFailed, expect, wait_until
from fast_playground.cluster.lifecycle import Playground
from screen import Screen
from terminal import run_on_terminal

BIN = Path(sys.executable).parent


class Cluster:
    """A playground, with the commands that a user has.

    Args:
        screen: Where commands are shown.
        name: The playground's.
    """

    def __init__(self, screen: Screen, name: str) -> None:
        self.screen = screen
        self.name = name
        self.playground = Playground(name)
        self.kubectl_path = shutil.which("kubectl") or str(BIN / "kubectl")

    # Commands: shown as a user types them.

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl and show it; return its output."""
        shown = "kubectl " + shlex.join(arguments)
        self.screen.command(f"{shown} <<EOF\n{stdin}EOF" if stdin else shown)
        output = self._run([self.kubectl_path, *arguments], stdin)
        self.screen.output(output)
        return output

    def query(self, *arguments: str) -> Any:
        """Ask kubectl for JSON, without showing it, for checks."""
        return json.loads(self._run([self.kubectl_path, *arguments, "-o", "json"]))

    def interactive(self, *arguments: str) -> str:
        """Run kubectl on its own terminal, which ``exec -it`` needs, and show it."""
        self.screen.command("kubectl " + shlex.join(arguments))
        status, output = run_on_terminal([self.kubectl_path, *arguments])
        self.screen.output(output)
        expect(status == 0, f"kubectl {arguments[0]} ended with exit status {status}")
        return output

    def on_node(self, node: str, *arguments: str) -> str:
        """Run a command on a node and show it."""
        command = ["fast-ctl", "playground", "node", node, "--name", self.name, "--", *arguments]
        self.screen.command(shlex.join(command))
        output = self._run([str(BIN / command[0]), *command[1:]])
        self.screen.output(output)
        return output

    def map_rows(self, node: str, *arguments: str) -> list[dict[str, Any]]:
        """Read an eBPF map of a node as JSON, without showing it."""
        place = self.playground.node(node)
        done = place.run("fast-ctl", *arguments, "-o", "json")
        expect(done.returncode == 0, f"fast-ctl {shlex.join(arguments)} on {node}: {done.stderr}")
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def _run(self, argv: list[str], stdin: str = "") -> str:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
        )
        if done.returncode:
            self.screen.output(done.stdout + done.stderr)
            raise DemoFailed(f"{shlex.join([Path(argv[0]).name, *argv[1:]])}: exit status {done.returncode}")
        return done.stdout

    # Queries.

    def pods(self, app: str) -> list[dict[str, Any]]:
        """The pods of an app, by address."""
        found = self.query("get", "pods", "-l", f"app={app}")["items"]
        return sorted(found, key=lambda pod: ipaddress.ip_address(pod["status"].get("podIP", "0.0.0.0")))  # noqa: S104 -- sorts first

    def expect_pods(self, app: str, addresses: list[str]) -> None:
        """Wait until the app's pods run, and check their addresses and that each is on a node of its own."""

        def running() -> bool:
            pods = self.pods(app)
            return len(pods) == len(addresses) and all(is_running(pod) for pod in pods)

        wait_until(running, f"the pods of {app} to run")
        pods = self.pods(app)
        found = [pod["status"]["podIP"] for pod in pods]
        expect(found == addresses, f"the pods of {app} have {found}, not {addresses}")
        nodes = sorted(pod["spec"]["nodeName"] for pod in pods)
        expect(nodes == ["n1", "n2"], f"the pods of {app} are on {nodes}, not on n1 and n2")
        self.screen.good(f"the pods of {app} run on n1 and n2 with {' and '.join(addresses)}")

    def packets(self, node: str, reason: str) -> int:
        """How many packets a node's eBPF programs have counted under a reason."""
        return sum(row["packets"] for row in self.map_rows(node, "metrics") if row["reason"] == reason)


def is_running(pod: dict[str, Any]) -> bool:
    """Whether a pod runs and is Ready."""
    conditions = {item["type"]: item["status"] for item in pod["status"].get("conditions", ())}
    return pod["status"].get("phase") == "Running" and conditions.get("Ready") == "True"
