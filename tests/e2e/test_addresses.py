"""Which address a pod gets, how long it keeps it, and what people are told about pools: on a whole cluster."""

import json
import signal

import pytest

PROGRAM = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
NOW_SECONDS = 15  # what is promised to be immediate, on a busy machine


def apply(cluster, *objects):
    cluster.kubectl.check("create", "-f", "-", stdin="\n---\n".join(map(json.dumps, objects)).encode())


def pool(name, *ips, subnet="10.244.0.0/16", **spec):
    return {
        "apiVersion": "sample.fast.io/v1alpha1",
        "kind": "Ips",
        "metadata": {"name": name},
        "spec": {"subnet": subnet, "ips": ips, **spec},
    }


def pod_spec(**spec):
    main = {"name": "main", "image": "busybox", "command": ["sleep", "infinity"]}
    return {"terminationGracePeriodSeconds": 0, "containers": [main], **spec}


def pod(name, node="n1", *, pools="", ip="", labels=None, namespace="default"):
    annotations = {key: value for key, value in (("fast.io/ips", pools), ("fast.io/ip", ip)) if value}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": annotations,
            "labels": labels or {},
        },
        "spec": pod_spec(nodeName=node),
    }


def stateful_set(name, pools, replicas):
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {"fast.io/ips": pools}},
                "spec": pod_spec(),
            },
        },
    }


def record(address, pools, *, node="n1", container="0" * 64, sticky=""):
    """A record as an agent would have written it, for what would need many pods."""
    spec = {
        "pool": pools,
        "pod": {"namespace": "default", "name": f"of-{address}", "uid": f"uid-{address}"},
        "node": node,
        "bootID": "b",
        "containerID": container,
        "interface": "eth0",
        "stickyKey": sticky,
    }
    return {
        "apiVersion": "sample.fast.io/v1alpha1",
        "kind": "IpEndpoint",
        "metadata": {"name": address},
        "spec": spec,
    }


@pytest.fixture
def cluster(playground):
    """The module's playground; pods, records, pools and events are gone after each test."""
    yield playground
    kubectl = playground.kubectl
    kubectl.check("delete", "statefulsets,pods", "--all", "--wait", "--timeout=30s")
    kubectl.check("delete", "ipendpoints", "--all", "--wait=false")
    kubectl.check("delete", "ips", "--all", "--wait", "--timeout=30s")
    kubectl.check("delete", "events", "--all", "-A", "--wait=false")


def addresses(cluster):
    """Every record's address with its pod's name; of a retained one with none."""
    return {
        item["metadata"]["name"]: item["spec"]["pod"]["name"] if item["spec"].get("containerID") else ""
        for item in cluster.items("ipendpoints")
    }


def condition(cluster, name, kind):
    found = cluster.get("ips", name).get("status", {}).get("conditions", [])
    return next((item for item in found if item["type"] == kind), {})


def metric(place, port, name):
    """The samples of a metric there: label text → value."""
    done = place.run("python3", "-c", PROGRAM, f"http://127.0.0.1:{port}/metrics")
    assert done.returncode == 0, done.stderr
    lines = [line.rpartition(" ") for line in done.stdout.splitlines()]
    return {
        labels.removeprefix(name): float(value)
        for labels, _, value in lines
        if labels == name or labels.startswith(name + "{")
    }


def agent_metric(cluster, node, name):
    return metric(cluster.playground.node(node), 9095, name)


def controller_metric(cluster, name):
    return metric(cluster.playground.underlay, 9096, name)


def ips_of(cluster, name):
    return [item["ip"] for item in cluster.get("pod", name)["status"]["podIPs"]]


def refused(cluster, name):
    """What the event says of a pod that gets no address."""
    return cluster.until(lambda: cluster.events("FailedCreatePodSandBox", name), f"{name} refused")[0]


def test_a_stateful_sets_pods_keep_their_addresses_until_it_is_scaled_below_them(cluster):
    apply(cluster, pool("a", "10.244.1.0-10.244.1.9"), stateful_set("web", "a", 3))
    cluster.until(lambda: len(addresses(cluster)) == 3, "three addresses")
    names = ["web-0", "web-1", "web-2"]
    before = cluster.wait_running(*names)
    uids = {name: cluster.get("pod", name)["metadata"]["uid"] for name in names}
    cluster.kubectl.check("delete", "pod", "web-1", "web-2")

    def made_anew():
        found = {item["metadata"]["name"]: item["metadata"]["uid"] for item in cluster.items("pods")}
        return (
            found.keys() == uids.keys()
            and found["web-1"] != uids["web-1"]
            and found["web-2"] != uids["web-2"]
        )

    cluster.until(made_anew, "new pods")
    assert cluster.wait_running(*names) == before
    cluster.kubectl.check("scale", "statefulset", "web", "--replicas=1")
    cluster.until(lambda: addresses(cluster) == {before[0]: "web-0"}, "the others' addresses to be free")
    said = cluster.until(lambda: cluster.events("AddressReleased", "a"), "an event")
    assert any("web-1" in text or "web-2" in text for text in said)
    assert "ordinals 0 to 0" in said[0]
    assert controller_metric(cluster, "fast_ipam_released_total")['{pool="a",rule="scaled-down"}'] == 2


def test_a_pod_gets_the_one_address_that_it_asks_for_and_waits_while_it_is_somebody_elses(cluster):
    apply(cluster, pool("a", "10.244.1.0-10.244.1.9"))
    apply(cluster, pod("first", pools="a", ip="10.244.1.7"), pod("other", pools="a"))
    assert cluster.wait_running("first", "other") == ["10.244.1.7", "10.244.1.0"]
    apply(cluster, pod("second", "n2", pools="a", ip="10.244.1.7"))
    assert "10.244.1.7 belongs to pod first on node n1" in refused(cluster, "second")
    assert cluster.events("AddressConflict", "second")
    cluster.kubectl.check("delete", "pod", "first")
    assert cluster.wait_running("second") == ["10.244.1.7"]


def test_an_address_asked_for_that_no_pool_has_is_refused_with_the_pools_named(cluster):
    apply(cluster, pool("a", "10.244.1.0-10.244.1.9"), pod("lost", pools="a", ip="10.244.9.9"))
    assert "10.244.9.9 is in none of the pools it may come from (a)" in refused(cluster, "lost")


def test_only_pods_that_match_a_pools_affinities_get_its_addresses(cluster):
    cluster.kubectl.check("label", "node", "n1", "zone=east", "--overwrite")
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "team", "labels": {"tier": "gold"}},
    }
    by_pod, by_namespace, by_node = (
        {"matchLabels": {"app": "db"}},
        {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["gold"]}]},
        {"matchLabels": {"zone": "east"}},
    )
    apply(
        cluster,
        namespace,
        pool("pods", "10.244.1.0-10.244.1.9", podAffinity=by_pod),
        pool("namespaces", "10.244.2.0-10.244.2.9", namespaceAffinity=by_namespace),
        pool("nodes", "10.244.3.0-10.244.3.9", nodeAffinity=by_node),
    )
    apply(
        cluster,
        pod("db", pools="pods", labels={"app": "db"}),
        pod("in-team", pools="namespaces", namespace="team"),
        pod("east", "n1", pools="nodes"),
        pod("no-db", pools="pods"),
        pod("no-team", pools="namespaces"),
        pod("west", "n2", pools="nodes"),
        pod("west-with-choice", "n2", pools="nodes,namespaces,pods", labels={"app": "db"}),
    )
    db, east, choosy = cluster.wait_running("db", "east", "west-with-choice")
    assert east == "10.244.3.0"
    assert {db, choosy} == {"10.244.1.0", "10.244.1.1"}
    cluster.until(lambda: addresses(cluster).get("10.244.2.0") == "in-team", "an address by namespace")
    assert "its podAffinity does not match" in refused(cluster, "no-db")
    assert "its namespaceAffinity does not match" in refused(cluster, "no-team")
    assert "its nodeAffinity does not match" in refused(cluster, "west")
    cluster.kubectl.check("delete", "namespace", "team", "--wait", "--timeout=30s")


def test_excluded_addresses_are_given_to_nobody(cluster):
    apply(cluster, pool("a", "10.244.1.0-10.244.1.4", excludeIPs=["10.244.1.0", "10.244.1.2-10.244.1.3"]))
    assert cluster.until(lambda: cluster.get("ips", "a").get("status"), "a status")["totalIPCount"] == 2
    apply(cluster, *(pod(name, pools="a") for name in ("one", "two")))
    assert sorted(cluster.wait_running("one", "two")) == ["10.244.1.1", "10.244.1.4"]


def test_the_next_pool_serves_once_the_one_before_is_exhausted(cluster):
    apply(cluster, pool("a", "10.244.1.0"), pool("b", "10.244.2.0"))
    apply(cluster, pod("one", pools="a,b"))
    assert cluster.wait_running("one") == ["10.244.1.0"]
    apply(cluster, pod("two", "n2", pools="a,b"))
    assert cluster.wait_running("two") == ["10.244.2.0"]
    apply(cluster, pod("three", pools="a,b"))
    said = refused(cluster, "three")
    assert "pool a is exhausted (1 addresses: 1 bound" in said
    assert "pool b is exhausted (1 addresses: 1 bound" in said
    cluster.kubectl.check("delete", "pod", "one")
    assert cluster.wait_running("three") == ["10.244.1.0"]


def test_a_namespaces_annotation_is_the_default_of_its_pods(cluster):
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "team", "annotations": {"fast.io/ips": "a"}},
    }
    apply(cluster, namespace, pool("a", "10.244.1.0-10.244.1.9"), pool("b", "10.244.2.0-10.244.2.9"))
    apply(cluster, pod("plain", namespace="team"), pod("own", namespace="team", pools="b"))
    cluster.until(
        lambda: addresses(cluster) == {"10.244.1.0": "plain", "10.244.2.0": "own"}, "an address of each pool"
    )
    cluster.kubectl.check("delete", "namespace", "team", "--wait", "--timeout=30s")


def test_a_pod_of_pools_of_both_families_gets_an_address_of_each(cluster):
    apply(cluster, pool("four", "10.244.1.0-10.244.1.9"), pool("six", subnet="fd00:244::/64"))
    apply(cluster, pod("one", "n1", pools="four,six"), pod("two", "n2", pools="six,four"))
    cluster.wait_running("one", "two")
    first, second = ips_of(cluster, "one"), ips_of(cluster, "two")
    assert ":" not in first[0]
    assert ":" in first[1]
    assert len({*first, *second}) == 4
    assert len(addresses(cluster)) == 4
    for there in second:
        cluster.kubectl.check("exec", "one", "--", "ping", "-c1", "-W5", there)


def test_a_pool_that_grows_gives_its_new_addresses_at_once(cluster):
    apply(cluster, pool("a", "10.244.1.0"), pod("one", pools="a"))
    cluster.wait_running("one")
    cluster.kubectl.check(
        "patch", "ips", "a", "--type=merge", "-p", '{"spec":{"ips":["10.244.1.0-10.244.1.1"]}}'
    )
    apply(cluster, pod("two", "n2", pools="a"))
    assert cluster.wait_running("two", seconds=NOW_SECONDS) == ["10.244.1.1"]


def test_addresses_in_use_stay_valid_when_their_pool_shrinks_and_the_condition_says_whose_they_are(cluster):
    apply(cluster, pool("a", "10.244.1.0-10.244.1.1"), pod("one", "n1", pools="a"))
    cluster.wait_running("one")
    apply(cluster, pod("two", "n2", pools="a"))
    assert cluster.wait_running("two") == ["10.244.1.1"]
    cluster.kubectl.check("patch", "ips", "a", "--type=merge", "-p", '{"spec":{"ips":["10.244.1.1"]}}')
    found = cluster.until(lambda: condition(cluster, "a", "AddressesOutsideRanges"), "a condition")
    assert "pod default/one (10.244.1.0)" in found["message"]
    assert addresses(cluster) == {"10.244.1.0": "one", "10.244.1.1": "two"}
    cluster.kubectl.check("delete", "pod", "one")
    cluster.until(lambda: not condition(cluster, "a", "AddressesOutsideRanges"), "the condition to go")


def test_a_pool_deleted_while_in_use_waits_for_its_last_address_and_gives_no_new_one(cluster):
    apply(cluster, pool("a", "10.244.1.0-10.244.1.9"), pod("one", pools="a"))
    cluster.wait_running("one")
    cluster.until(lambda: cluster.get("ips", "a")["metadata"].get("finalizers"), "a finalizer")
    cluster.kubectl.check("delete", "ips", "a", "--wait=false")
    found = cluster.until(
        lambda: (c := condition(cluster, "a", "Ready")) and c["reason"] == "BeingDeleted" and c, "a condition"
    )
    assert "pod default/one (10.244.1.0)" in found["message"]
    apply(cluster, pod("two", pools="a"))
    assert "pool a is being deleted" in refused(cluster, "two")
    assert addresses(cluster) == {"10.244.1.0": "one"}
    cluster.kubectl.check("delete", "pod", "one", "two")
    cluster.until(lambda: not cluster.items("ips"), "the pool to go")


def test_a_released_address_is_the_last_to_be_given_again(cluster):
    apply(cluster, pool("a", "10.244.1.0-10.244.1.1"))
    seen = []
    for name in ("one", "two", "three"):
        apply(cluster, pod(name, pools="a"))
        seen += cluster.wait_running(name)
        cluster.kubectl.check("delete", "pod", name)
        cluster.until(lambda: not addresses(cluster), "a free address")
    assert seen == ["10.244.1.0", "10.244.1.1", "10.244.1.0"]


def test_an_exhausted_pool_says_so_everywhere_until_an_address_is_free(cluster):
    apply(cluster, pool("a", "10.244.1.0"), pod("one", pools="a"))
    cluster.wait_running("one")
    apply(cluster, pod("two", "n2", pools="a"))
    cluster.until(lambda: cluster.events("PoolExhausted", "two"), "an event on the pod")
    cluster.until(lambda: cluster.events("PoolExhausted", "a"), "an event on the pool")
    cluster.until(lambda: condition(cluster, "a", "Exhausted")["status"] == "True", "a condition")
    assert agent_metric(cluster, "n2", "fast_ipam_claims_total")['{pool="a",result="exhausted"}'] >= 1
    assert controller_metric(cluster, "fast_ipam_addresses")['{pool="a",state="free"}'] == 0
    cluster.kubectl.check("delete", "pod", "one")
    assert cluster.wait_running("two") == ["10.244.1.0"]


def test_a_pool_with_few_addresses_left_says_so_once(cluster):
    apply(cluster, pool("a", "10.244.1.0-10.244.1.10"))
    apply(cluster, *(record(f"10.244.1.{number}", "a") for number in range(10)))
    said = cluster.until(lambda: cluster.events("PoolLow", "a"), "an event")
    assert said == ["less than 10% of 11 addresses are free"]


def test_claims_and_conflicts_are_counted_and_timed(cluster):
    apply(cluster, pool("counted", "10.244.1.0-10.244.1.9"), pod("one", pools="counted"))
    cluster.wait_running("one")
    assert agent_metric(cluster, "n1", "fast_ipam_claims_total")['{pool="counted",result="created"}'] == 1
    assert agent_metric(cluster, "n1", "fast_ipam_claim_duration_seconds_count")[""] >= 1
    apply(cluster, pod("two", "n2", pools="counted", ip="10.244.1.0"))
    refused(cluster, "two")
    assert agent_metric(cluster, "n2", "fast_ipam_conflicts_total")['{pool="counted"}'] >= 1
    states = controller_metric(cluster, "fast_ipam_addresses")
    cluster.until(
        lambda: controller_metric(cluster, "fast_ipam_addresses")['{pool="counted",state="bound"}'] == 1,
        "gauges",
    )
    assert '{pool="counted",state="retained"}' in states


def test_addresses_of_many_sets_gone_at_once_are_held_and_the_pool_says_what_they_wait_for(cluster):
    apply(cluster, pool("a", "10.244.1.0-10.244.1.99"))
    gone = [
        record(f"10.244.1.{number}", "a", node="", container="", sticky=f"StatefulSet/shop/s{number}/0")
        for number in range(30)
    ]
    # Together: where the machine is slow, the controller would see some, too few to stop for, and free them.
    control = cluster.playground.underlay.control
    control.kill("controller", signal.SIGSTOP)
    apply(cluster, *gone)
    control.kill("controller", signal.SIGCONT)
    cluster.until(lambda: cluster.events("GCStopped", "a"), "an event")
    found = cluster.until(lambda: condition(cluster, "a", "GarbageCollectionStopped"), "a condition")
    assert "30 of 30 StatefulSets are gone at once" in found["message"]
    assert controller_metric(cluster, "fast_ipam_gc_stopped")[""] == 1
    assert len(addresses(cluster)) == 30
    cluster.kubectl.check("delete", "ipe", *(f"10.244.1.{number}" for number in range(28)))
    apply(cluster, record("10.244.1.40", "a", node="", container="", sticky="StatefulSet/shop/s40/0"))
    cluster.until(lambda: not addresses(cluster), "the rest to be freed")
    cluster.until(lambda: not condition(cluster, "a", "GarbageCollectionStopped"), "the condition to go")
    assert controller_metric(cluster, "fast_ipam_gc_stopped")[""] == 0


def test_a_record_that_somebody_deletes_is_back_at_once_and_no_other_pod_gets_its_address(cluster):
    apply(cluster, pool("lost", "10.244.1.0-10.244.1.1"), pod("first", pools="lost"))
    (held,) = cluster.wait_running("first")
    before = cluster.get("ipe", held)
    cluster.kubectl.check("delete", "ipe", held)
    cluster.until(lambda: addresses(cluster) == {held: "first"}, "the record to be back")
    after = cluster.get("ipe", held)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"] == before["spec"]
    apply(cluster, pod("second", "n2", pools="lost"))
    assert cluster.wait_running("second") == ["10.244.1.1"]


def test_a_set_that_is_deleted_without_its_pods_and_created_again_adopts_their_addresses(cluster):
    apply(cluster, pool("kept", "10.244.1.0-10.244.1.9"), stateful_set("db", "kept", 2))
    cluster.until(lambda: len(addresses(cluster)) == 2, "two addresses")
    before = cluster.wait_running("db-0", "db-1")
    uids = {item["metadata"]["uid"] for item in cluster.items("pods")}
    cluster.kubectl.check("delete", "statefulset", "db", "--cascade=orphan")
    apply(cluster, stateful_set("db", "kept", 2))
    cluster.kubectl.check("delete", "pod", "db-0", "db-1")
    cluster.until(
        lambda: (
            len(found := {item["metadata"]["uid"] for item in cluster.items("pods")}) == 2
            and not found & uids
        ),
        "new pods",
    )
    assert cluster.wait_running("db-0", "db-1") == before


def test_a_pool_in_use_refuses_another_subnet_and_its_pods_reach_each_other_when_it_is_gone(cluster):
    apply(cluster, pool("moved", "10.244.1.0-10.244.1.9"), pod("one", "n1", pools="moved"))
    cluster.wait_running("one")
    apply(cluster, pod("two", "n2", pools="moved"))
    (second,) = cluster.wait_running("two")
    cluster.until(lambda: cluster.get("ips", "moved")["status"]["allocatedIPCount"] == 2, "the count")
    edit = ("patch", "ips", "moved", "--type=merge", "-p", '{"spec":{"subnet":"10.99.0.0/16","ips":[]}}')
    refused_edit = cluster.kubectl(*edit)
    assert refused_edit.returncode != 0
    assert b"the subnet may only grow: 2 are held" in refused_edit.stderr
    cluster.kubectl.check("delete", "ips", "moved", "--wait=false")
    # what no admission can help: an operator removes the finalizer by force
    cluster.kubectl.check("patch", "ips", "moved", "--type=merge", "-p", '{"metadata":{"finalizers":[]}}')
    cluster.until(lambda: not cluster.items("ips"), "the pool to go")
    for size in ("56", "4000"):  # the fast path, and fragments, which take the kernel's routes
        for _ in range(3):
            cluster.kubectl.check("exec", "one", "--", "ping", "-c1", "-W2", "-s", size, second)
