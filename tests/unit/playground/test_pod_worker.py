"""A pod is Running only while it has an address, whatever its ADD and DEL do."""

import asyncio
import contextlib
import os

import pytest

from fast.api.meta import ObjectMeta
from fast_playground.cluster import pod_worker
from fast_playground.cluster.plugins import PluginError
from fast_playground.cluster.pod_types import Container, Pod, PodSpec
from fast_playground.cluster.pod_worker import Machinery, PodWorker
from fast_playground.cluster.processes import start_ticks
from fast_playground.cluster.sandbox import ProcessRecord, SandboxRecords

RESULT = {"ips": [{"address": "10.244.0.5/32"}]}


class Plugins:
    """Answers ADD and DEL by a script; each entry is used once, the last for ever."""

    def __init__(self, adds, deletes):
        self._adds, self._deletes = adds, deletes

    async def add(self, network, attachment):
        return self._next(self._adds)

    async def delete(self, network, attachment, result):
        self._next(self._deletes)

    @staticmethod
    def _next(script):
        answer = script.pop(0) if len(script) > 1 else script[0]
        if answer is None:
            raise PluginError("refused")
        return answer


class Client:
    """Notes the statuses that are written."""

    def __init__(self):
        self.statuses = []

    async def patch(self, resource, name, patch, namespace, subresource):
        self.statuses.append(patch["status"])


class Nothing:
    """Events and processes: taken note of by nobody."""

    def event(self, *args):
        pass

    def start(self, *args):
        raise OSError("no processes in this test")


@pytest.fixture
def run(monkeypatch, tmp_path):
    pause = ProcessRecord(pid=os.getpid(), start_ticks=start_ticks(os.getpid()))
    monkeypatch.setattr(pod_worker, "make_netns", lambda: tmp_path)
    monkeypatch.setattr(pod_worker, "start_pause", lambda *_: pause)
    for name in ("remove_netns", "stop_pause"):
        monkeypatch.setattr(pod_worker, name, lambda _: None)
    monkeypatch.setattr(pod_worker, "_FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(pod_worker, "_LONGEST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(Machinery, "network", lambda self: None)

    def run(adds, deletes, containers=()):
        client, records = Client(), SandboxRecords(tmp_path / "records")
        plugins = Plugins(list(adds), list(deletes))
        machinery = Machinery(client, Nothing(), plugins, Nothing(), records, tmp_path, "192.168.77.1")
        pod = Pod(metadata=ObjectMeta(name="a", namespace="default", uid="u"), spec=PodSpec(list(containers)))

        async def go():
            # a second worker: what a kubelet that was killed in between left on disk is taken up
            for _ in range(2):
                left = next(iter(records.read()), None)
                worker = PodWorker(machinery, "u", left)
                worker.update(pod)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(worker.run(), 0.15)

        asyncio.run(go())
        return client.statuses

    return run


@pytest.mark.parametrize("adds", [[None], [None, None, RESULT], [{}], [{"ips": []}]])
@pytest.mark.parametrize("deletes", [[None], [True], [None, None, True]])
def test_a_pod_is_never_running_without_an_address(run, adds, deletes):
    statuses = run(adds, deletes, [Container(name="main")] if adds == [None] else [])
    assert statuses
    assert [status for status in statuses if status["phase"] == "Running" and not status["podIP"]] == []


def test_a_pod_whose_add_and_del_fail_first_gets_its_address_in_the_end(run):
    assert run([None, RESULT], [None, True])[-1]["podIP"] == "10.244.0.5"
