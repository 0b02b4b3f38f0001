"""Everything that can be killed is killed while pods come and go and the pool is edited; then all must agree.

The short form runs with the other tests. The long one: ``FAST_CRASH_SECONDS=180 FAST_CRASH_PODS=200``; a seed
printed with a failure is set by ``FAST_CRASH_SEED`` (the order of things then is the same, their times are not).
"""

import json
import os
import random
import time

import pytest

from e2e.agreement import disagreements, twice_given

SECONDS = float(os.environ.get("FAST_CRASH_SECONDS", "15"))
PODS = int(os.environ.get("FAST_CRASH_PODS", "24"))
SEED = int(os.environ.get("FAST_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
#: An agent looks twice, 30 s apart, before it frees what nobody else freed.
SETTLE_SECONDS = 100 + PODS / 2
APPS = 4


def workload(kind, name, replicas):
    labels = {"app": name}
    main = {"name": "main", "image": "busybox", "command": ["sleep", "infinity"]}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels, "annotations": {"fast.io/ips": "crash"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [main]},
        },
    }
    if kind == "StatefulSet":
        spec |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


class Churn:
    """Deletes and scales, without a care for whether the API server is there."""

    def __init__(self, cluster, dice):
        self._kubectl = cluster.kubectl
        self._dice = dice
        self._share = PODS // APPS
        self.names = [f"deployment/app-{number}" for number in range(APPS - 1)] + ["statefulset/sticky"]

    def start(self):
        objects = [workload("Deployment", f"app-{number}", self._share) for number in range(APPS - 1)]
        objects.append(workload("StatefulSet", "sticky", self._share))
        self._kubectl.check("create", "-f", "-", stdin="\n---\n".join(map(json.dumps, objects)).encode())

    def step(self):
        if self._dice.random() < 0.3:
            replicas = self._dice.randint(self._share // 2, self._share)
            self._kubectl("scale", self._dice.choice(self.names), f"--replicas={replicas}", "--timeout=5s")
            return
        done = self._kubectl("get", "pods", "-o", "name", "--request-timeout=5s")
        pods = done.stdout.decode().split()
        if done.returncode or not pods:
            return
        chosen = self._dice.sample(pods, min(len(pods), self._dice.randint(1, max(2, PODS // 10))))
        force = ["--force", "--grace-period=0"] if self._dice.random() < 0.3 else []
        self._kubectl("delete", *chosen, "--wait=false", "--request-timeout=5s", *force)

    def stop(self):
        for name in self.names:
            self._kubectl.check("scale", name, f"--replicas={self._share}")


class Operator:
    """Moves the pool's ranges while its addresses are in use."""

    RANGES = ("10.244.1.0-10.244.3.255", "10.244.2.0-10.244.3.255", "10.244.1.0-10.244.2.255")

    def __init__(self, cluster, dice):
        self._kubectl = cluster.kubectl
        self._dice = dice

    def step(self):
        self.edit(self._dice.choice(self.RANGES))

    def edit(self, ranges):
        patch = json.dumps({"spec": {"ips": [ranges]}})
        return self._kubectl(
            "patch", "ips", "crash", "--type=merge", "-p", patch, "--request-timeout=5s"
        ).returncode


def crash_something(cluster, dice):
    playground = cluster.playground
    nodes = [(node.control, "agent") for node in playground.nodes()]
    control, program = dice.choice(
        [*nodes, (playground.underlay.control, "controller"), (playground.root, "apiserver")]
    )
    control.kill(program)


@pytest.mark.timeout(SECONDS + SETTLE_SECONDS + 120)
def test_after_crashes_under_churn_records_sandboxes_and_maps_agree_exactly(start_playground):
    print(f"FAST_CRASH_SEED={SEED}")
    dice = random.Random(SEED)
    cluster = start_playground(nodes=2, agent_args=("--gc-interval-seconds", "5"))
    cluster.make_pool("crash", "10.244.1.0-10.244.3.255")
    churn = Churn(cluster, dice)
    operator = Operator(cluster, dice)
    churn.start()
    end, next_crash, crashes = time.monotonic() + SECONDS, 0.0, 0
    while (now := time.monotonic()) < end:
        if now >= next_crash:
            crash_something(cluster, dice)
            crashes += 1
            next_crash = now + dice.uniform(0.3, 3)
        churn.step()
        if dice.random() < 0.3:
            operator.step()
        assert not twice_given(cluster)
    assert crashes >= SECONDS / 10
    cluster.until(lambda: cluster.kubectl("get", "nodes").returncode == 0, "the API server")
    cluster.until(lambda: operator.edit(operator.RANGES[0]) == 0, "the pool as it was")
    churn.stop()
    wait_until_all_agree(cluster)


def wait_until_all_agree(cluster):
    """Wait; what still differs at the end is the failure's text."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while said := look(cluster):
        assert time.monotonic() < deadline, "\n".join(said)
        time.sleep(0.5)
    assert not twice_given(cluster)
    for node in cluster.playground.nodes():
        audit = node.run("fast-ctl", "ipam", "audit")
        assert audit.returncode == 0, audit.stdout + audit.stderr


def look(cluster):
    pods = cluster.items("pods")
    if len(pods) != PODS // APPS * APPS:
        return [f"{len(pods)} pods"]
    return disagreements(cluster)
