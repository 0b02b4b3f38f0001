"""What a pod holds, or is kept for it, whatever became of its pool, its owner or its labels meanwhile."""

from __future__ import annotations

import pytest

from fakes.store import a_pool
from fast.api.core import Pod
from fast.api.ipendpoint import PodRef
from fast.api.meta import ObjectMeta, OwnerReference
from fast.errors import AddressConflict, PoolExhausted, PoolNotAllowed, PoolNotFound
from fast.ipam import ClaimRequest
from fast.ipam.rules.sticky_keys import (
    former_sticky_key_of,
    parse_sticky_key,
    sticky_key_of,
    sticky_labels,
)
from fast.net import parse_address
from unit.deploy.admission import verdict
from unit.ipam.nodes import SMALL, Nodes, names, sandbox

KEY = "StatefulSet/default/db/0"


@pytest.fixture
def nodes():
    return Nodes(a_pool("small", "10.244.10.0-10.244.10.9"), a_pool("new", "10.244.20.0-10.244.20.9"))


def edit(nodes, name, *ips, **fields):
    nodes.cluster.put_pool(a_pool(name, *(ips or ("10.244.10.0-10.244.10.9",)), **fields))


def delete_pool(nodes, name):
    pool = a_pool(name, "10.244.10.0-10.244.10.9")
    pool.metadata.deletion_timestamp = "2026-01-01T00:00:00Z"
    nodes.cluster.put_pool(pool)


EDITS = {
    "being deleted": lambda nodes: delete_pool(nodes, "small"),
    "gone": lambda nodes: nodes.cluster.drop_pool("small"),
    "affinity": lambda nodes: edit(nodes, "small", podAffinity={"matchLabels": {"a": "b"}}),
    "node affinity": lambda nodes: edit(nodes, "small", nodeAffinity={"matchLabels": {"a": "b"}}),
    "ranges moved": lambda nodes: edit(nodes, "small", "10.244.10.5-10.244.10.9"),
    "subnet moved": lambda nodes: edit(nodes, "small", "10.99.0.5-10.99.0.9", subnet="10.99.0.0/16"),
    "unreadable": lambda nodes: edit(nodes, "small", "nonsense"),
}


@pytest.mark.parametrize("what", EDITS)
@pytest.mark.parametrize("again", ["a repeated ADD", "a new sandbox", "a reboot"])
async def test_a_pod_gets_the_address_that_it_holds_whatever_was_done_to_its_pool(nodes, what, again):
    agent = nodes.agent()
    (before,) = await agent.claim(sandbox(1, "web"), SMALL)
    EDITS[what](nodes)
    if again == "a reboot":
        agent = nodes.agent(boot="boot-2")
    number = 1 if again == "a repeated ADD" else 2
    (after,) = await agent.claim(sandbox(number, "web"), SMALL)
    assert after.metadata.name == before.metadata.name
    if what not in ("ranges moved", "subnet moved"):
        with pytest.raises((PoolNotFound, PoolNotAllowed)):
            await agent.claim(sandbox(3, "other"), SMALL)


async def test_a_pod_that_holds_one_family_of_two_is_not_served_with_that_one_alone():
    nodes = Nodes(
        a_pool("four", "10.244.10.0-10.244.10.9"), a_pool("six", "fd00::1-fd00::9", subnet="fd00::/64")
    )
    agent = nodes.agent()
    await agent.claim(sandbox(1), ClaimRequest(pools=("four",)))
    nodes.cluster.put_pool(
        a_pool("six", "fd00::1-fd00::9", subnet="fd00::/64", podAffinity={"matchLabels": {"a": "b"}})
    )
    with pytest.raises(PoolNotAllowed):
        await agent.claim(sandbox(1), ClaimRequest(pools=("four", "six")))


async def test_nothing_is_written_if_the_second_family_is_exhausted():
    nodes = Nodes(a_pool("four", "10.244.10.0-10.244.10.9"), a_pool("six", "fd00::1", subnet="fd00::/64"))
    agent = nodes.agent()
    await agent.claim(sandbox(1), ClaimRequest(pools=("six",)))
    writes = nodes.cluster.next_number()
    with pytest.raises(PoolExhausted, match="pool six is exhausted"):
        await agent.claim(sandbox(2), ClaimRequest(pools=("four", "six")))
    assert nodes.cluster.next_number() == writes + 1


async def retained(nodes, key=KEY, pod="db-0"):
    """Keep the pool's first address for a key; gives its record's name."""
    agent = nodes.agent()
    (record,) = await agent.claim(sandbox(1, pod, uid="a"), ClaimRequest(pools=("small",), sticky_key=key))
    await agent.release("c1", "eth0")
    return record.metadata.name


@pytest.mark.parametrize("what", ["ranges moved", "subnet moved", "another pool"])
async def test_a_pod_whose_kept_address_no_longer_fits_gets_another_at_once_by_the_shipped_policy(
    nodes, what
):
    kept = await retained(nodes)
    pool = "new" if what == "another pool" else "small"
    if what != "another pool":
        EDITS[what](nodes)
    agent = nodes.agent("n1")
    agent._store._admission = lambda *write: verdict("fast-agent-own-records", *write, node="n1")
    request = ClaimRequest(pools=(pool,), sticky_key=KEY)
    (record,) = await agent.claim(sandbox(2, "db-0", uid="b"), request)
    assert record.metadata.name != kept
    assert kept in nodes.cluster.endpoints  # the controller's to free: rule sticky-twice
    assert record.spec.sticky_key == KEY


async def test_a_pod_does_not_wait_for_its_predecessors_address_if_it_would_not_get_it(nodes):
    await nodes.agent("n1").claim(sandbox(1, "db-0", uid="a"), ClaimRequest(pools=("small",), sticky_key=KEY))
    moved = ClaimRequest(pools=("new",), sticky_key=KEY)
    assert names(await nodes.agent("n2").claim(sandbox(2, "db-0", uid="b"), moved)) == ["10.244.20.0"]


async def test_a_record_of_the_former_key_is_found_and_gets_the_present_key_and_label(nodes):
    kept = await retained(nodes, key="uid-of-db/0")
    request = ClaimRequest(pools=("small",), sticky_key=KEY, former_sticky_key="uid-of-db/0")
    (record,) = await nodes.agent("n2", lagging=True).claim(sandbox(2, "db-0", uid="b"), request)
    assert (record.metadata.name, record.spec.sticky_key) == (kept, KEY)
    assert record.metadata.labels == sticky_labels(KEY)


async def test_a_pod_of_another_namespace_does_not_get_the_address_kept_for_a_key_that_it_forged(nodes):
    kept = await retained(nodes, key="uid-of-db/0")
    mallory = sandbox(2, "db-0", uid="b")
    mallory = type(mallory)("c2", "eth0", PodRef(namespace="tenant-b", name="db-0", uid="b"))
    request = ClaimRequest(pools=("small",), sticky_key="", former_sticky_key="uid-of-db/0")
    assert names(await nodes.agent().claim(mallory, request)) != [kept]


async def test_a_refusal_tells_nothing_of_a_pod_of_another_namespace(nodes):
    await nodes.agent("n2").claim(sandbox(1, "secret"), SMALL)
    asked = ClaimRequest(pools=("small",), addresses=(parse_address("10.244.10.0"),))
    mallory = type(sandbox(2))("c2", "eth0", PodRef(namespace="tenant-b", name="m", uid="b"))
    with pytest.raises(AddressConflict) as refused:
        await nodes.agent().claim(mallory, asked)
    assert str(refused.value) == "address 10.244.10.0 belongs to another workload"


async def test_a_pod_keeps_its_key_when_its_sandbox_is_made_again_while_its_set_is_orphaned(nodes):
    agent = nodes.agent()
    await agent.claim(sandbox(1, "db-0"), ClaimRequest(pools=("small",), sticky_key=KEY))
    (record,) = await agent.claim(sandbox(2, "db-0"), SMALL)
    assert record.spec.sticky_key == KEY


def pod_of(name, *owners, **annotations):
    meta = ObjectMeta(name=name, namespace="shop", owner_references=list(owners), annotations=annotations)
    return Pod(metadata=meta)


def owner(kind="StatefulSet", name="db", group="apps/v1"):
    return OwnerReference(api_version=group, kind=kind, name=name, uid=f"uid-of-{name}", controller=True)


@pytest.mark.parametrize(
    ("pod", "key"),
    [
        (pod_of("db-3", owner()), "StatefulSet/shop/db/3"),
        (pod_of("db-3", owner(group="apps.kruise.io/v1beta1")), ""),
        (pod_of("web-3", owner()), ""),
        (pod_of("db-x", owner()), ""),
        (pod_of("x-7", owner("CloneSet"), **{"fast.io/sticky": "true"}), "Pod/shop/x-7"),
        (pod_of("x-7", owner("CloneSet"), **{"fast.io/sticky": "no"}), ""),
        (pod_of("x-7"), ""),
    ],
)
def test_the_sticky_key_names_namespace_and_stable_name_of_the_workloads_member(pod, key):
    assert sticky_key_of(pod) == key
    assert former_sticky_key_of(pod) == ("uid-of-db/3" if key.startswith("StatefulSet") else "")


def test_a_sticky_key_is_read_back_in_its_present_and_former_form():
    assert parse_sticky_key(KEY) is not None
    assert parse_sticky_key(KEY).ordinal == 0
    assert parse_sticky_key("Pod/shop/x-7").ordinal is None
    assert parse_sticky_key("some-uid/4").set_uid == "some-uid"
    for odd in ("", "StatefulSet/a/b/x", "Pod/a", "/3", "a/b/c"):
        assert parse_sticky_key(odd) is None


def test_the_label_of_a_key_is_one_whatever_the_keys_length():
    for key in (KEY, f"StatefulSet/{'n' * 63}/{'s' * 200}/12", "Pod/a/b"):
        (value,) = sticky_labels(key).values()
        assert 0 < len(value) <= 63
        assert value[0].isalnum()


async def test_a_kept_address_is_found_though_the_view_shows_one_that_was_kept_before_it(nodes):
    two = nodes.agent("n2", lagging=True)
    one = nodes.agent("n1")
    request = ClaimRequest(pools=("small",), sticky_key=KEY)
    await one.claim(sandbox(1, "db-0", uid="a"), request)
    await one.release("c1", "eth0")
    two._store.deliver()
    (stale,) = nodes.cluster.endpoints.values()
    nodes.cluster.delete(stale)  # the controller frees it
    await one.claim(sandbox(9), SMALL)
    (young,) = await one.claim(sandbox(2, "db-0", uid="b"), request)
    await one.release("c2", "eth0")
    assert young.metadata.name != stale.metadata.name
    (record,) = await two.claim(sandbox(3, "db-0", uid="c"), request)
    assert record.metadata.name == young.metadata.name
