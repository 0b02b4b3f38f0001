"""The steps of the quick start, in order. Each claim is checked."""

from __future__ import annotations

import os
import shlex

from checks import WAIT_SECONDS, expect, wait_until
from cluster import BIN, Cluster
from fast_playground.cluster.traces import find_traces

PINGS = 5
REPLICAS = 2

IPS = """\
apiVersion: sample.fast.io/v1alpha1
kind: Ips
metadata:
  name: {name}
spec:
  subnet: 10.244.0.1/16
  ips:
  - {ips}
"""

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: 2
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}{annotations}
    spec:
      containers:
      - name: busybox
        image: busybox
        command: [sleep, infinity]
"""

ANNOTATION = """
      annotations:
        fast.io/ips: sample-ips"""


class Demo(Cluster):
    """The quick start."""

    # The steps.

    def bring_up(self) -> None:
        """Make the playground."""
        self.screen.step("A cluster of two nodes on this machine")
        command = ["fast-ctl", "playground", "up", "--nodes", "2", "--name", self.name, "--pool", ""]
        self.screen.command(shlex.join(command))
        self.screen.output(self._run([str(BIN / command[0]), *command[1:]]))
        os.environ["KUBECONFIG"] = str(self.playground.directory.kubeconfig)
        self.kubectl("get", "nodes", "-o", "wide")
        names = [node["metadata"]["name"] for node in self.query("get", "nodes")["items"]]
        expect(names == ["n1", "n2"], f"the nodes are {names}")

    def make_pool(self) -> None:
        """Step 1: the pool ``sample-ips``."""
        self.screen.step("A pool of addresses")
        self.kubectl("create", "-f", "-", stdin=IPS.format(name="sample-ips", ips="10.244.10.0-10.244.90.0"))
        self.kubectl("wait", "--for=condition=Ready", "ips/sample-ips", "--timeout=30s")

    def deploy_annotated(self) -> None:
        """Step 2: pods that take their addresses from it."""
        self.screen.step("A Deployment whose pods take their addresses from it")
        self.kubectl("create", "-f", "-", stdin=DEPLOYMENT.format(name="busybox", annotations=ANNOTATION))
        self.kubectl("rollout", "status", "deployment/busybox", f"--timeout={WAIT_SECONDS:.0f}s")
        self.expect_pods("busybox", ["10.244.10.0", "10.244.10.1"])

    def deploy_default(self) -> None:
        """Step 3: ``default-ips``, and pods that name no pool."""
        self.screen.step("The default pool, and a Deployment that names none")
        pool = IPS.format(name="default-ips", ips="10.244.100.0-10.244.200.250")
        self.kubectl("create", "-f", "-", stdin=pool)
        self.kubectl("create", "-f", "-", stdin=DEPLOYMENT.format(name="busybox1", annotations=""))
        self.kubectl("rollout", "status", "deployment/busybox1", f"--timeout={WAIT_SECONDS:.0f}s")
        self.expect_pods("busybox1", ["10.244.100.0", "10.244.100.1"])

    def look(self) -> None:
        """Step 4: compare kubectl's output with the records."""
        self.screen.step("Pods, pools and addresses as the API server has them")
        self.kubectl("get", "po", "-o", "wide")
        self.await_allocated(REPLICAS)
        self.kubectl("get", "ips")
        self.kubectl("get", "ipendpoints")
        owners = {
            item["metadata"]["name"]: (item["spec"]["pod"]["name"], item["spec"]["node"])
            for item in self.query("get", "ipendpoints")["items"]
        }
        pods = [*self.pods("busybox"), *self.pods("busybox1")]
        expected = {
            pod["status"]["podIP"]: (pod["metadata"]["name"], pod["spec"]["nodeName"]) for pod in pods
        }
        expect(owners == expected, f"the records are {owners}, the pods {expected}")
        self.screen.good("each pod's address is one IpEndpoint object, and the pools count them")

    def await_allocated(self, count: int) -> None:
        """Wait until both pools count so many addresses in use."""
        pools = ("sample-ips", "default-ips")
        wait_until(
            lambda: all(self.allocated(pool) == count for pool in pools),
            f"pools that count {count} addresses",
        )

    def allocated(self, pool: str) -> int:
        """How many addresses of a pool its status counts as in use."""
        return int(self.query("get", "ips", pool)["status"]["allocatedIPCount"])

    def ping(self) -> None:
        """Step 5: from a pod to one on its node and to one on the other."""
        source = self.pods("busybox")[0]
        node = source["spec"]["nodeName"]
        for target in sorted(self.pods("busybox1"), key=lambda pod: pod["spec"]["nodeName"] != node):
            here = target["spec"]["nodeName"] == node
            where = "on the same node" if here else "on the other node"
            reason = "forward_local_pod" if here else "forward_tunnel"
            self.screen.step(f"Ping from a busybox pod to the busybox1 pod {where}")
            before = self.packets(node, reason)
            name, address = source["metadata"]["name"], target["status"]["podIP"]
            output = self.interactive(
                "exec", "-it", name, "--", "ping", "-c", str(PINGS), "-i", "0.2", address
            )
            expect(f"{PINGS} received, 0% packet loss" in output, f"packets to {address} were lost")
            counted = self.packets(node, reason) - before
            least = 2 * PINGS if here else PINGS  # on the same node, requests and replies
            expect(
                counted >= least, f"the programs on {node} counted {counted} packets as {reason}, not {least}"
            )
            self.screen.good(f"0% loss; the eBPF programs on {node} counted {counted} packets as {reason}")

    def read_maps(self) -> None:
        """Step 6: compare a node's maps with the API."""
        self.screen.step("A node's eBPF maps, read by fast-ctl")
        self.on_node("n1", "fast-ctl", "local-ips", "list")
        self.on_node("n1", "fast-ctl", "cluster-ips", "list")
        self.on_node("n1", "fast-ctl", "local-dev", "list")
        pods = [*self.pods("busybox"), *self.pods("busybox1")]
        local = {pod["status"]["podIP"] for pod in pods if pod["spec"]["nodeName"] == "n1"}
        nodes = {pod["status"]["podIP"]: pod["status"]["hostIP"] for pod in pods}
        rows = {row["ip"] for row in self.map_rows("n1", "local-ips", "list")}
        expect(rows == local, f"the local map of n1 has {rows}, not {local}")
        known = {
            row["ip"]: row["nodeIP"]
            for row in self.map_rows("n1", "cluster-ips", "list")
            if row["kind"] == "pod"
        }
        expect(known == nodes, f"the cluster map of n1 has {known}, not {nodes}")
        self.screen.good("the maps have exactly the pods that the API server has")

    def delete(self) -> None:
        """Step 7: all addresses are free again."""
        self.screen.step("Everything deleted: the addresses are free again")
        self.kubectl("delete", "deployment", "busybox", "busybox1")
        wait_until(lambda: not self.query("get", "pods")["items"], "the pods to end")
        wait_until(lambda: not self.query("get", "ipendpoints")["items"], "the addresses to be free")
        self.await_allocated(0)
        self.kubectl("get", "ips")
        left = [
            row
            for node in ("n1", "n2")
            for row in self.map_rows(node, "local-ips", "list")
            if row["kind"] == "pod"
        ]
        expect(not left, f"the nodes' maps still have {left}")
        self.screen.good("no IpEndpoint is left, and no pod in the nodes' maps")
        self.kubectl("delete", "ips", "sample-ips", "default-ips")

    def tear_down(self) -> None:
        """Take the playground down and check that nothing is left."""
        self.screen.step("The cluster taken down")
        traces = find_traces(self.name)
        expect(bool(traces.namespaces), "the playground has no namespaces")
        command = ["fast-ctl", "playground", "down", "--name", self.name]
        self.screen.command(shlex.join(command))
        self.screen.output(self._run([str(BIN / command[0]), *command[1:]]))
        wait_until(
            lambda: not traces.remaining(), "everything to be gone", lambda: "; ".join(traces.remaining())
        )
        self.screen.good("no process, namespace, mount, pin, device or file of it is left")

    def run(self) -> None:
        """Run every step; DemoFailed at the first failed check."""
        self.bring_up()
        self.make_pool()
        self.deploy_annotated()
        self.deploy_default()
        self.look()
        self.ping()
        self.read_maps()
        self.delete()
        self.tear_down()
