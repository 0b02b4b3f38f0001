"""Workloads as a user of kubectl sees them: scale, rollout, wait, describe, delete, on the real server over HTTPS."""

import asyncio
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from fakes.kubelet import Everything, StatusKubelet
from fast_playground.apiserver.runtime import ApiServer

_DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "busybox:1"}]}
"""


class Session:
    """A kubectl and the kubelet of the server it speaks to."""

    def __init__(self, kubeconfig: Path, kubelet: StatusKubelet) -> None:
        self.kubelet = kubelet
        self._kubeconfig = kubeconfig

    async def run(self, *args: str, stdin: str = "") -> tuple[int, str]:
        """Run kubectl; gives its exit status and what it wrote."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("kubectl")),
            *args,
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | {"KUBECONFIG": str(self._kubeconfig)},
        )
        output, _ = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        return process.returncode, output.decode()

    async def __call__(self, *args: str, stdin: str = "") -> str:
        """Run kubectl, which must succeed; gives what it wrote."""
        code, output = await self.run(*args, stdin=stdin)
        assert code == 0, f"kubectl {' '.join(args)}: {output}"
        return output


@pytest.fixture
async def kubectl(tmp_path):
    server = ApiServer(tmp_path / "data")
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    await server.start([listening])
    kubelet = StatusKubelet(server.verbs)
    running = asyncio.create_task(kubelet.run())
    try:
        for node in ("n1", "n2"):
            await kubelet.add_node(node)
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        server.write_admin_kubeconfig(tmp_path / "kubeconfig", url)
        yield Session(tmp_path / "kubeconfig", kubelet)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()


async def _deployed(kubectl) -> None:
    await kubectl("create", "-f", "-", stdin=_DEPLOYMENT)
    assert "successfully rolled out" in await kubectl("rollout", "status", "deploy/web", "--timeout=20s")


async def test_scale_and_rollout_status_end_with_what_was_asked_for(kubectl):
    await _deployed(kubectl)
    await kubectl("scale", "deploy/web", "--replicas=4")
    await kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    assert (await kubectl("get", "deploy", "web", "--no-headers")).split()[1:4] == ["4/4", "4", "4"]
    await kubectl("scale", "deploy/web", "--replicas=1")
    await kubectl("wait", "--for=jsonpath={.status.replicas}=1", "deploy/web", "--timeout=20s")


async def test_a_rollout_has_history_and_can_be_undone(kubectl):
    await _deployed(kubectl)
    await kubectl("set", "image", "deploy/web", "web=busybox:2")
    await kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    history = await kubectl("rollout", "history", "deploy/web")
    assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["1", "2"]
    await kubectl("rollout", "undo", "deploy/web")
    await kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    image = "jsonpath={.spec.template.spec.containers[0].image}"
    assert await kubectl("get", "deploy", "web", "-o", image) == "busybox:1"
    await kubectl("rollout", "restart", "deploy/web")
    await kubectl("rollout", "status", "deploy/web", "--timeout=20s")


async def test_rollout_status_waits_for_pods_that_do_not_come_up(kubectl):
    kubectl.kubelet.holds = Everything()
    await kubectl("create", "-f", "-", stdin=_DEPLOYMENT)
    code, output = await kubectl.run("rollout", "status", "deploy/web", "--timeout=2s")
    assert code == 1
    assert "0 of 2 updated replicas are available" in output


async def test_wait_sees_conditions_and_deletions(kubectl):
    await _deployed(kubectl)
    await kubectl("wait", "--for=condition=Available", "deploy/web", "--timeout=20s")
    await kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=20s")
    waiting = asyncio.create_task(kubectl("wait", "--for=delete", "pod", "-l", "app=web", "--timeout=20s"))
    await kubectl("delete", "deploy", "web")
    await waiting
    assert "No resources found" in await kubectl("get", "all")


async def test_describe_tells_the_story(kubectl):
    await _deployed(kubectl)
    deployment = await kubectl("describe", "deploy", "web")
    assert "2 desired | 2 updated | 2 total | 2 available | 0 unavailable" in deployment
    assert "ScalingReplicaSet" in deployment
    first = (await kubectl("get", "pods", "-o", "name")).split()[0]
    pod = await kubectl("describe", first)
    assert re.search(r"^Controlled By: +ReplicaSet/web-", pod, re.MULTILINE)
    assert "Successfully assigned default/web-" in pod
    assert re.search(r"^ +Ready +True", await kubectl("describe", "node", "n1"), re.MULTILINE)
    assert "SuccessfulCreate" in await kubectl("describe", "rs", "-l", "app=web")


@pytest.mark.parametrize("how", [["--force", "--grace-period=0"], ["--now"], ["--grace-period=1"]])
async def test_a_deleted_pod_ends_and_its_successor_comes(kubectl, how):
    await _deployed(kubectl)
    first = (await kubectl("get", "pods", "-o", "name")).split()[0]
    await kubectl("delete", first, *how)
    await kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    names = (await kubectl("get", "pods", "-o", "name")).split()
    assert len(names) == 2
    assert first not in names


async def test_force_ends_a_pod_whose_kubelet_is_dead(kubectl):
    kubectl.kubelet.keeps = Everything()
    await _deployed(kubectl)
    first = (await kubectl("get", "pods", "-o", "name")).split()[0]
    code, _ = await kubectl.run("delete", first, "--timeout=1s")
    assert code == 1
    assert first in (await kubectl("get", "pods", "-o", "name")).split()
    await kubectl("delete", first, "--force", "--grace-period=0")
    assert first not in (await kubectl("get", "pods", "-o", "name")).split()


@pytest.mark.parametrize(
    ("cascade", "left"), [("background", []), ("foreground", []), ("orphan", ["replicaset", "pod"])]
)
async def test_each_cascade_leaves_what_it_should(kubectl, cascade, left):
    await _deployed(kubectl)
    await kubectl("delete", "deploy", "web", f"--cascade={cascade}")
    if not left:
        await kubectl("wait", "--for=delete", "pod,rs", "-l", "app=web", "--timeout=20s")
    names = (await kubectl("get", "deploy,rs,pods", "-o", "name")).split()
    kinds = {name.partition("/")[0].partition(".")[0] for name in names}
    assert kinds == set(left)


async def test_a_stateful_set_rolls_out_and_scales_from_the_top(kubectl):
    manifest = _DEPLOYMENT.replace("kind: Deployment", "kind: StatefulSet").replace(
        "replicas: 2", "serviceName: web"
    )
    await kubectl("apply", "-f", "-", stdin=manifest)
    await kubectl("scale", "sts/web", "--replicas=3")
    await kubectl("rollout", "status", "sts/web", "--timeout=20s")
    names = (await kubectl("get", "pods", "-o", "name")).split()
    assert names == ["pod/web-0", "pod/web-1", "pod/web-2"]
    await kubectl("rollout", "restart", "sts/web")
    await kubectl("rollout", "status", "sts/web", "--timeout=20s")
    await kubectl("scale", "sts/web", "--replicas=1")
    await kubectl("wait", "--for=delete", "pod/web-1", "--timeout=20s")
    assert (await kubectl("get", "pods", "-o", "name")).split() == ["pod/web-0"]


async def test_a_namespace_is_deleted_with_everything_in_it(kubectl):
    await kubectl("create", "namespace", "shop")
    await kubectl("create", "-n", "shop", "-f", "-", stdin=_DEPLOYMENT)
    await kubectl("rollout", "status", "-n", "shop", "deploy/web", "--timeout=20s")
    await kubectl("delete", "namespace", "shop", "--timeout=20s")
    code, output = await kubectl.run("get", "namespace", "shop")
    assert (code, "not found" in output) == (1, True)


async def test_a_cordoned_node_gets_no_pods_and_a_drained_one_loses_its_own(kubectl):
    await _deployed(kubectl)
    await kubectl("cordon", "n1")
    await kubectl("scale", "deploy/web", "--replicas=4")
    await kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    nodes = (await kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}")).split()
    assert sorted(nodes) == ["n1", "n2", "n2", "n2"]
    await kubectl("drain", "n1", "--disable-eviction", "--force", "--timeout=20s")
    nodes = (await kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}")).split()
    assert set(nodes) == {"n2"}
