"""Problems of a node that come and go while the agent runs."""

import asyncio
import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from prometheus_client import REGISTRY

from fast.agent.app.own_node import peers_of
from fast.agent.cni.tombstones import Tombstones
from fast.agent.node import installed_checks
from fast.agent.node.installed_checks import INSTALLED_CHECKS, RUNNING_CHECKS, is_installed
from fast.agent.node.node_checks import CHECKS, NodeFacts, Severity, examine
from fast.agent.node.path_checks import PATH_CHECKS
from fast.agent.node.problem_watch import ProblemWatch, missing_pool_problems
from fast.api.fastnode import FastNode, FastNodeSpec, NodeProblem
from fast.api.meta import ObjectMeta
from fast.cni import CniCall, CniReply
from fast.cni.frames import encode_reply

STRICT = NodeProblem("rp-filter", "error", "strict", "make it loose")
FORWARD = NodeProblem("forward-policy", "warning", "drops", "nothing")


class Watched:
    def __init__(self):
        self.found, self.told, self.changes = [], [], 0
        self.watch = ProblemWatch(
            lambda: [item for item in self.found if item.check != "pools"],
            lambda: [item for item in self.found if item.check == "pools"],
            self.tell,
            changed=self.changed,
        )

    def tell(self, reason, message, *, normal=False):
        self.told.append((reason, message, normal))

    def changed(self):
        self.changes += 1


async def test_a_problem_that_comes_or_goes_is_one_event_with_its_remedy_and_one_that_stays_is_none():
    watched = Watched()
    for watched.found in ([], [STRICT], [STRICT], [STRICT, FORWARD], [FORWARD]):
        await watched.watch.look()
    assert watched.told == [
        ("NodeProblem", "rp-filter: strict. To do: make it loose", False),
        ("NodeProblem", "forward-policy: drops. To do: nothing", False),
        ("NodeProblemGone", "rp-filter: no longer true: strict", True),
    ]
    assert watched.changes == 3
    assert watched.watch.problems == (FORWARD,)


async def test_the_metric_has_what_is_wrong_now_and_nothing_else():
    watched = Watched()

    def shown():
        return {
            (sample.labels["check"], sample.labels["severity"]): sample.value
            for metric in REGISTRY.collect()
            if metric.name == "fast_problem"
            for sample in metric.samples
        }

    watched.found = [STRICT, NodeProblem("rp-filter", "error", "another", "x"), FORWARD]
    await watched.watch.look()
    assert shown() == {("rp-filter", "error"): 2, ("forward-policy", "warning"): 1}
    watched.found = []
    await watched.watch.look()
    assert shown() == {}


async def test_problems_of_machine_and_cluster_are_one_list_errors_first():
    watched = Watched()
    cluster = NodeProblem("pools", "error", "differs", "x")
    watched.found = [FORWARD, cluster, STRICT]
    await watched.watch.look()
    assert watched.watch.problems == (STRICT, cluster, FORWARD)


async def test_checks_that_block_do_not_hold_up_the_event_loop():
    watched, go_on = Watched(), threading.Event()
    watched.watch._examine = lambda: [STRICT] if go_on.wait(10) else []
    looking = asyncio.create_task(watched.watch.look())
    await asyncio.sleep(0.01)
    assert not looking.done()
    go_on.set()
    await looking
    assert watched.watch.problems == (STRICT,)


def test_a_check_that_cannot_be_made_is_a_problem_and_keeps_no_other_from_being_made():
    def refuse(_):
        raise OSError(13, "Permission denied")

    def find(_):
        yield Severity.ERROR, "broken", "repair it"

    found = examine(NodeFacts(), {"a": refuse, "b": find})
    assert [(problem.check, problem.severity) for problem in found] == [("b", "error"), ("a", "warning")]
    assert "cannot be made" in found[1].problem


def test_the_agent_runs_every_check_of_the_doctor_but_the_one_of_itself():
    assert RUNNING_CHECKS.keys() == (CHECKS | INSTALLED_CHECKS).keys() - {"agent"}


@pytest.fixture
def facts(tmp_path, monkeypatch):
    plugin = tmp_path / "own-fast-cni"
    plugin.write_bytes(b"this version")
    monkeypatch.setenv("FAST_CNI_BINARY", str(plugin))
    for name in ("bin", "net.d", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "net.d" / "10-fast.conflist").touch()
    (tmp_path / "bin" / "fast-cni").write_bytes(b"this version")
    return NodeFacts(
        cni_bin_dir=tmp_path / "bin",
        cni_conf_dir=tmp_path / "net.d",
        state_dir=tmp_path / "state",
        socket_path=tmp_path / "agent.sock",
    )


def found_by(check, facts):
    return [problem.problem for problem in examine(facts, {check: INSTALLED_CHECKS[check]})]


@contextmanager
def an_agent(facts, reply):
    """Whatever takes one connection and sends these bytes; None: it never answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(facts.socket_path))
        listener.listen()
        done = threading.Event()

        def serve():
            connection, _ = listener.accept()
            with connection:
                size = struct.unpack("<II", connection.recv(8))
                connection.recv(sum(size))
                if reply is None:
                    done.wait(10)
                else:
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        done.set()
        thread.join()


def test_a_node_without_a_trace_of_fast_is_not_asked_for_its_agent(facts):
    assert is_installed(facts)
    nowhere = facts.cni_conf_dir / "nowhere"
    unseen = replace(facts, socket_path=nowhere / "agent.sock", state_dir=nowhere)
    assert not is_installed(unseen)  # as in the container of deploy/doctor
    (facts.cni_conf_dir / "10-fast.conflist").unlink()
    assert not is_installed(facts)


def test_a_sound_node_has_no_problem(facts):
    with an_agent(facts, encode_reply(CniReply(0))):
        for check in INSTALLED_CHECKS:
            assert found_by(check, facts) == []


def test_an_agent_that_is_away_hangs_or_is_not_ready_is_told_apart(facts, monkeypatch):
    (gone,) = found_by("agent", facts)
    assert "no fast-agent serves" in gone
    monkeypatch.setattr(installed_checks, "_ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(installed_checks.ask_status, "__defaults__", (0.1,))
    with an_agent(facts, None):
        (hung,) = found_by("agent", facts)
    assert "it hangs" in hung
    facts.socket_path.unlink()
    with an_agent(facts, encode_reply(CniReply(1, b'{"code":50,"msg":"api-server: away"}'))):
        (unready,) = found_by("agent", facts)
    assert unready == "the node is not ready for pods: api-server: away"


@pytest.mark.parametrize(
    "reply", [b"", b"\0" * 9, *(encode_reply(CniReply(1, text)) for text in (b"no json", b"[]"))]
)
def test_an_answer_that_makes_no_sense_is_a_problem_and_no_traceback(facts, reply):
    with an_agent(facts, reply):
        (problem,) = found_by("agent", facts)
    assert "cannot be made" in problem


def test_a_missing_configuration_and_a_foreign_plugin_are_told(facts):
    (facts.cni_conf_dir / "10-fast.conflist").unlink()
    (facts.cni_bin_dir / "fast-cni").write_bytes(b"another version")
    missing, foreign = sorted(found_by("installation", facts), key=lambda text: "is not the one" in text)
    assert "10-fast.conflist is missing" in missing
    assert "is not the one of this version" in foreign


def test_dels_that_wait_for_long_are_told_and_young_ones_are_not(facts):
    tombstones = Tombstones(facts.state_dir / "tombstones")
    for name in ("c1", "c2"):
        tombstones.leave((name, "eth0"), CniCall({}))
    assert found_by("tombstones", facts) == []
    old = time.time() - 301
    installed_checks.os.utime(tombstones.directory / "c1:eth0", (old, old))
    (problem,) = found_by("tombstones", facts)
    assert problem.startswith("1 DELs have waited")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"f_flag": 1}, "read-only"),
        ({"f_bavail": 4}, "5% of the space"),
        ({"f_favail": 4}, "5% of the inodes"),
    ],
)
def test_a_disk_that_is_full_or_read_only_is_told(facts, monkeypatch, change, said):
    class Disk:
        f_flag, f_blocks, f_bavail, f_files, f_favail = 0, 100, 50, 100, 50

    disk = Disk()
    for name, value in change.items():
        setattr(disk, name, value)
    monkeypatch.setattr(installed_checks.os, "statvfs", lambda _: disk)
    (problem,) = found_by("disk", facts)
    assert said in problem


@pytest.mark.parametrize(
    ("ahead", "said"), [(None, None), (0.4, None), (-29, None), (31, "31 s ahead of"), (-90, "90 s behind")]
)
def test_a_clock_that_differs_from_the_api_servers_is_told(ahead, said):
    found = examine(NodeFacts(clock_ahead_seconds=lambda: ahead), {"clock": PATH_CHECKS["clock"]})
    assert [said in problem.problem for problem in found] == ([True] if said else [])


def test_without_the_default_pool_it_is_told_and_with_it_not():
    assert missing_pool_problems({"default-ips": 1}) == []
    (problem,) = missing_pool_problems({"other": 1})
    assert "no Ips default-ips" in problem.problem


def test_peers_are_the_other_nodes_with_an_address_that_can_be_read():
    def node(name, *addresses):
        return FastNode(metadata=ObjectMeta(name=name), spec=FastNodeSpec(addresses=addresses))

    nodes = [node("n1", "192.0.2.1"), node("n2", "fd00::2", "192.0.2.2"), node("n3"), node("n4", "x.y")]
    assert peers_of("n1", nodes) == [("n2", IPv4Address("192.0.2.2"))]
