"""A playground that runs, with a kubectl: what tests of whole clusters stand on. No assertions about either."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from e2e.kubectl import Kubectl
from fast_playground.cluster.directory import Settings
from fast_playground.cluster.lifecycle import Playground, fresh_name

IPS = """
apiVersion: sample.fast.io/v1alpha1
kind: Ips
metadata: {{name: {name}}}
spec: {{subnet: {subnet}, ips: [{ips}]}}
"""

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, annotations: {annotations}}}
spec:
  terminationGracePeriodSeconds: 0
  nodeName: {node}
  containers: [{{name: main, image: busybox, command: [sleep, infinity]}}]
"""


class Running:
    """One playground.

    Attributes:
        playground: Itself.
        kubectl: Its administrator's.
    """

    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        self.kubectl = Kubectl(playground.directory.kubeconfig)

    def get(self, *arguments: str) -> dict[str, Any]:
        """``kubectl get … -o json``."""
        return json.loads(self.kubectl.check("get", *arguments, "-o", "json"))

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """``kubectl get …``: the objects."""
        return self.get(*arguments)["items"]

    def make_pool(self, name: str, ips: str, subnet: str = "10.244.0.1/16") -> None:
        """Create an Ips."""
        self.kubectl.check("create", "-f", "-", stdin=IPS.format(name=name, subnet=subnet, ips=ips).encode())

    def make_pod(self, name: str, node: str = "n1", **annotations: str) -> None:
        """Create a pod on a node; ``fast_io_ips="a"`` becomes the annotation ``fast.io/ips: a``."""
        spelled = {key.replace("fast_io_", "fast.io/"): value for key, value in annotations.items()}
        text = POD.format(name=name, node=node, annotations=json.dumps(spelled))
        self.kubectl.check("create", "-f", "-", stdin=text.encode())

    def wait_running(self, *names: str, seconds: float = 30) -> list[str]:
        """Wait until pods are Ready; gives their addresses."""
        pods = [f"pod/{name}" for name in names]
        self.kubectl.check("wait", "--for=condition=Ready", f"--timeout={seconds}s", *pods)
        return [self.get("pod", name)["status"]["podIP"] for name in names]

    def delete_pods(self) -> None:
        """Delete every pod of the default namespace, and wait until their addresses are free."""
        self.kubectl.check("delete", "pods", "--all", "--wait", "--timeout=30s")
        self.until(lambda: not self.items("ipendpoints"), "free addresses")

    def ctl(self, node: str, *arguments: str) -> Any:
        """``fast-ctl … -o json`` on a node."""
        done = self.playground.node(node).run("fast-ctl", *arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def events(self, reason: str, name: str = "") -> list[str]:
        """The messages of the events of a reason (about the object of that name)."""
        return [
            event["message"]
            for event in self.items("events", "-A")
            if event["reason"] == reason and (not name or event["involvedObject"]["name"] == name)
        ]

    def until(self, holds: Callable[[], Any], what: str, seconds: float = 30) -> Any:
        """Wait until something holds; gives what it gave."""
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(0.1)
        return found


@contextmanager
def running(**settings: Any) -> Iterator[Running]:
    """Run a playground with a name of its own; taken down at the end, whatever happens."""
    playground = Playground(fresh_name("test"))
    try:
        playground.up(Settings(**settings))
        yield Running(playground)
    finally:
        playground.down()
