"""``fast-ctl ipam`` on a cluster that runs: what it says where all agrees, and of damage done by hand."""

import json
import subprocess
import sys

import pytest

POOL = "ctl-ips"


@pytest.fixture(scope="module")
def cluster(playground):
    playground.make_pool(POOL, "10.244.30.0-10.244.30.9")
    playground.make_pod("one", "n1", fast_io_ips=POOL)
    playground.make_pod("two", "n2", fast_io_ips=POOL)
    playground.wait_running("one", "two")
    return playground


def on_admins_machine(cluster, *arguments):
    command = [sys.executable, "-m", "fast.ctl.fast_ctl", "ipam", *arguments, "-o", "json"]
    kubeconfig = str(cluster.playground.directory.kubeconfig)
    done = subprocess.run(
        [*command, "--kubeconfig", kubeconfig], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


def address_of(cluster, pod):
    return cluster.get("pod", pod)["status"]["podIP"]


def test_pools_are_counted_and_what_cools_is_known_on_a_node_only(cluster):
    (row,) = cluster.ctl("n1", "ipam", "pools")
    assert (row["pool"], row["total"], row["bound"], row["free"], row["retained"]) == (POOL, 10, 2, 8, 0)
    assert row["cooling"] == 0
    status, rows, _ = on_admins_machine(cluster, "pools", "--agent-metrics", "http://127.0.0.1:9/metrics")
    assert (status, rows[0]["bound"], rows[0]["cooling"]) == (0, 2, None)


def test_why_names_the_owner_and_the_rules_of_controller_and_agent(cluster):
    (found,) = cluster.ctl("n1", "ipam", "why", "default/one")
    assert found["address"] == address_of(cluster, "one")
    assert (found["state"], found["pools"], found["owner"]["pod"]) == ("bound", [POOL], "one")
    verdicts = {item["by"]: item["rule"] for item in found["verdicts"]}
    assert verdicts == {"controller": "pod-exists", "agent of n1": "sandbox-exists"}
    assert "claimed from pool" in found["history"][-1]["what"]


def test_why_of_a_free_address_and_of_nobodys(cluster):
    assert on_admins_machine(cluster, "why", "10.244.30.9")[1][0]["state"] == "free"
    assert on_admins_machine(cluster, "why", "203.0.113.1")[1][0]["state"] == "in no pool"
    status, _, error = on_admins_machine(cluster, "why", "nosuch")
    assert status == 1
    assert "default/nosuch" in error


def test_gc_frees_nothing_that_somebody_answers_for(cluster):
    assert on_admins_machine(cluster, "gc", "--dry-run")[:2] == (0, [])
    assert cluster.ctl("n2", "ipam", "gc", "--dry-run") == []


def test_gc_says_what_of_a_node_that_is_gone_it_would_free_then_frees_it(cluster):
    spec = {"pool": POOL, "node": "nosuch", "containerID": "c", "interface": "eth0"}
    record = {
        "apiVersion": "sample.fast.io/v1alpha1",
        "kind": "IpEndpoint",
        "metadata": {"name": "10.244.30.8"},
        "spec": {**spec, "pod": {"namespace": "default", "name": "gone", "uid": "u"}, "bootID": "b"},
    }
    cluster.kubectl.check("create", "-f", "-", stdin=json.dumps(record).encode())
    status, rows, _ = on_admins_machine(cluster, "gc", "--dry-run")
    assert (status, [(row["address"], row["rule"]) for row in rows]) == (0, [("10.244.30.8", "node-gone")])
    assert "10.244.30.8" in {item["metadata"]["name"] for item in cluster.items("ipendpoints")}
    assert on_admins_machine(cluster, "gc")[0] == 0
    assert "10.244.30.8" not in {item["metadata"]["name"] for item in cluster.items("ipendpoints")}


def test_audit_is_silent_where_all_agrees(cluster):
    assert cluster.ctl("n1", "ipam", "audit") == []
    assert on_admins_machine(cluster, "audit", "--cluster-only")[:2] == (0, [])


def test_audit_away_from_a_node_says_so(cluster, tmp_path):
    status, _, error = on_admins_machine(cluster, "audit", "--bpf-dir", str(tmp_path))
    assert status == 1
    assert "--cluster-only" in error


def test_audit_finds_a_record_that_was_made_by_hand_and_ends_with_status_1(cluster):
    spec = {"pool": POOL, "node": "n1", "containerID": "c", "interface": "eth0", "bootID": "b"}
    record = {
        "apiVersion": "sample.fast.io/v1alpha1",
        "kind": "IpEndpoint",
        "metadata": {"name": "10.244.30.9"},
        "spec": {**spec, "pod": {"namespace": "default", "name": "gone", "uid": "u"}},
    }
    cluster.kubectl.check("create", "-f", "-", stdin=json.dumps(record).encode())
    done = cluster.playground.node("n1").run("fast-ctl", "ipam", "audit", "-o", "json")
    cluster.kubectl.check("delete", "ipendpoint", "10.244.30.9", "--ignore-not-found")
    found = {(row["node"], row["kind"]) for row in json.loads(done.stdout) if row["address"] == "10.244.30.9"}
    assert done.returncode == 1
    assert {("", "record-without-pod"), ("n1", "record-without-sandbox")} <= found


def test_why_says_on_a_node_what_a_waiting_pod_waits_for(cluster):
    cluster.make_pod("waits", "n1", **{"fast.io/ips": "nosuch", "fast.io/ipss": POOL})
    done = cluster.until(
        lambda: (
            (run := cluster.playground.node("n1").run("fast-ctl", "ipam", "why", "waits")).returncode and run
        ),
        "an answer",
    )
    assert "annotation fast.io/ipss means nothing to Fast; did you mean fast.io/ips?" in done.stderr
    assert "there is no Ips named 'nosuch'" in done.stderr
    cluster.until(lambda: cluster.events("UnknownAnnotation", "waits"), "an event")
    cluster.kubectl.check("delete", "pod", "waits", "--force", "--grace-period=0")
