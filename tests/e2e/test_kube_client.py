"""The client, informer and leader election on the embedded API server: over HTTPS, through restarts and kill -9."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fast.api.core import Lease, LeaseSpec, Namespace, Pod
from fast.api.crds import manifests
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.api.ips import Ips, IpsSpec, IpsStatus
from fast.api.meta import Condition, ObjectMeta
from fast.api.resources import EVENTS, IPENDPOINTS, IPSES, LEASES, NAMESPACES, PODS, Resource
from fast.errors import Conflict, Invalid, NotFound, Unauthorized, Unavailable
from fast.kube import ClusterConfig, EventRecorder, Informer, KubeClient, LeaderElector
from fast.kube.informer import Timing
from fast.kube.lease import Terms
from unit.apiserver.process import Server


class Manifest(msgspec.Struct, rename="camel"):
    """Any object, to be created as it stands."""

    api_version: str
    kind: str
    metadata: ObjectMeta
    spec: dict[str, Any] = {}


CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False, Manifest
)
WHOLE_PODS = Resource("", "v1", "pods", "Pod", True, Manifest)


@asynccontextmanager
async def api_server(place: Path):
    """A running server with Fast's CustomResourceDefinitions, and a client of it."""
    server = Server(place)
    try:
        await asyncio.to_thread(server.start)
        async with KubeClient(ClusterConfig.load(server.kubeconfig)) as client:
            for manifest in manifests().values():
                await client.create(CRDS, msgspec.convert(manifest, Manifest))
            for resource in (IPSES, IPENDPOINTS):
                await until(lambda resource=resource: succeeds(client.list(resource)))
            yield server, client
    finally:
        await asyncio.to_thread(server.stop)


async def succeeds(request) -> bool:
    try:
        await request
    except NotFound:
        return False
    return True


async def until(condition) -> None:
    """Wait for a condition (or an awaitable one) for at most 30 seconds."""
    async with asyncio.timeout(30):
        while True:
            found = condition()
            if (await found) if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)


def claim(address: str, *, node: str = "n1") -> IpEndpoint:
    return IpEndpoint(
        metadata=ObjectMeta(name=address),
        spec=IpEndpointSpec(pool="p", node=node, pod=PodRef("default", "busybox", "u"), container_id="c"),
    )


async def test_an_address_is_claimed_once_changed_by_compare_and_swap_and_released_exactly(tmp_path):
    async with api_server(tmp_path) as (_, client):
        made = await client.create(IPENDPOINTS, claim("10.0.0.1"))
        assert made.metadata.uid
        assert made.spec == claim("10.0.0.1").spec
        with pytest.raises(Conflict) as caught:
            await client.create(IPENDPOINTS, claim("10.0.0.1", node="n2"))
        assert caught.value.already_exists

        moved = IpEndpoint(metadata=made.metadata, spec=claim("10.0.0.1", node="n2").spec)
        updated = await client.update(IPENDPOINTS, moved)
        assert updated.spec.node == "n2"
        with pytest.raises(Conflict) as caught:
            await client.update(IPENDPOINTS, moved)
        assert not caught.value.already_exists

        with pytest.raises(Conflict):
            await client.delete(IPENDPOINTS, "10.0.0.1", resource_version=made.metadata.resource_version)
        with pytest.raises(Conflict):
            await client.delete(IPENDPOINTS, "10.0.0.1", uid="another")
        await client.delete(IPENDPOINTS, "10.0.0.1", uid=updated.metadata.uid)
        with pytest.raises(NotFound):
            await client.delete(IPENDPOINTS, "10.0.0.1")


async def test_of_many_claimants_of_one_address_exactly_one_gets_it(tmp_path):
    async with api_server(tmp_path) as (_, client):
        results = await asyncio.gather(
            *(client.create(IPENDPOINTS, claim("10.0.0.1", node=f"n{n}")) for n in range(32)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, IpEndpoint) for result in results) == 1
        assert all(result.already_exists for result in results if isinstance(result, Conflict))


async def test_the_servers_cel_rules_refuse_a_bad_pool_and_name_the_field(tmp_path):
    async with api_server(tmp_path) as (_, client):
        bad = {
            "must be a subnet": IpsSpec(subnet="10.0.0.0"),
            "the range is reversed": IpsSpec(subnet="10.0.0.0/24", ips=("10.0.0.9-10.0.0.1",)),
            "must be inside the subnet": IpsSpec(subnet="10.0.0.0/24", ips=("10.0.1.1",)),
            "must be an address": IpsSpec(subnet="10.0.0.0/24", ips=("garbage",)),
        }
        for words, spec in bad.items():
            with pytest.raises(Invalid, match=f"spec.*{words}"):
                await client.create(IPSES, Ips(metadata=ObjectMeta(name="p"), spec=spec))
        with pytest.raises(Invalid, match="the name must be the address"):
            await client.create(IPENDPOINTS, claim("busybox"))


async def test_a_pool_gets_its_default_and_its_status_only_through_the_subresource(tmp_path):
    async with api_server(tmp_path) as (_, client):
        spec = IpsSpec(subnet="10.244.0.1/16", ips=("10.244.10.0-10.244.90.0",))
        pool = await client.create(IPSES, Ips(metadata=ObjectMeta(name="p"), spec=spec))
        assert pool.spec.release_delay_seconds == 30
        ready = Condition(
            type="Ready", status="True", reason="Ok", last_transition_time="2026-01-01T00:00:00Z"
        )
        pool.status = IpsStatus(total_ip_count=5, allocated_ip_count=1, conditions=[ready])
        unchanged = await client.update(IPSES, pool)
        assert unchanged.status is msgspec.UNSET
        patch = {"status": msgspec.to_builtins(pool.status)}
        counted = await client.patch(IPSES, "p", patch, subresource="status")
        assert counted.status == pool.status
        patched = await client.patch(IPSES, "p", {"status": {"allocatedIPCount": 2}}, subresource="status")
        assert patched.status.allocated_ip_count == 2


async def test_an_endpoints_pool_never_changes(tmp_path):
    async with api_server(tmp_path) as (_, client):
        await client.create(IPENDPOINTS, claim("10.0.0.1"))
        with pytest.raises(Invalid, match="to change its pool"):
            await client.patch(IPENDPOINTS, "10.0.0.1", {"spec": {"pool": "q"}})


async def test_a_list_is_read_in_pages_by_selector(tmp_path):
    async with api_server(tmp_path) as (_, client):
        await asyncio.gather(
            *(client.create(IPENDPOINTS, claim(f"10.0.0.{n}", node=f"n{n % 2}")) for n in range(25))
        )
        listed = await client.list(IPENDPOINTS, limit=10)
        assert len({item.metadata.name for item in listed.items}) == 25
        assert listed.undecodable == {}
        ours = await client.list(IPENDPOINTS, field_selector="spec.node=n1", limit=5)
        assert {item.spec.node for item in ours.items} == {"n1"}
        assert len(ours.items) == 12


async def test_a_pod_is_deleted_with_grace_and_by_force(tmp_path):
    async with api_server(tmp_path) as (_, client):
        spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "busybox"}]}
        pod = Manifest("v1", "Pod", ObjectMeta(name="p", namespace="default"), spec)
        await client.create(WHOLE_PODS, pod)
        await client.delete(PODS, "p", "default", grace_period_seconds=5)
        found: Pod = await client.get(PODS, "p", "default")
        assert found.terminating
        await client.delete(PODS, "p", "default", uid=found.metadata.uid, grace_period_seconds=0)
        with pytest.raises(NotFound):
            await client.get(PODS, "p", "default")


async def test_an_informer_follows_through_kill_and_restart_of_the_server(tmp_path):
    async with api_server(tmp_path) as (server, client):
        timing = Timing(backoff=(0.05, 0.2))
        informer = Informer(client, IPENDPOINTS, timing=timing)
        changes = []
        informer.add_handler(lambda change: changes.append(change.current.metadata.name))
        task = asyncio.create_task(informer.run())
        try:
            await informer.wait_synced()
            await client.create(IPENDPOINTS, claim("10.0.0.1"))
            await until(lambda: changes == ["10.0.0.1"])
            for number in range(2, 5):
                await asyncio.to_thread(server.stop, signal.SIGKILL)
                with pytest.raises(Unavailable):
                    await client.get(IPENDPOINTS, "10.0.0.1")
                await asyncio.to_thread(server.start)
                await client.create(IPENDPOINTS, claim(f"10.0.0.{number}"))
                await until(lambda number=number: f"10.0.0.{number}" in informer.cache)
            await client.delete(IPENDPOINTS, "10.0.0.1")
            await until(lambda: "10.0.0.1" not in informer.cache)
            assert len(informer.cache) == 3
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_an_informer_with_a_field_selector_sees_objects_come_and_go_over_its_border(tmp_path):
    async with api_server(tmp_path) as (_, client):
        informer = Informer(client, IPENDPOINTS, field_selector="spec.node=n1")
        task = asyncio.create_task(informer.run())
        try:
            await informer.wait_synced()
            await client.create(IPENDPOINTS, claim("10.0.0.1", node="n2"))
            await client.create(IPENDPOINTS, claim("10.0.0.2", node="n1"))
            await until(lambda: set(informer.cache) == {"10.0.0.2"})
            await client.patch(IPENDPOINTS, "10.0.0.1", {"spec": {"node": "n1"}})
            await client.patch(IPENDPOINTS, "10.0.0.2", {"spec": {"node": "n2"}})
            await until(lambda: set(informer.cache) == {"10.0.0.1"})
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_leadership_passes_on_when_the_leader_stops(tmp_path):
    async with api_server(tmp_path) as (_, client):
        terms = Terms(duration=15, renew_deadline=10, retry_period=0.2)
        leading: list[str] = []

        def candidate(name: str) -> asyncio.Task[None]:
            async def work() -> None:
                leading.append(name)
                await asyncio.Event().wait()

            elector = LeaderElector(client, "kube-system", "fast", name, terms=terms)
            return asyncio.create_task(elector.run(work))

        first = candidate("a")
        await until(lambda: leading == ["a"])
        second = candidate("b")
        try:
            lease = await client.get(LEASES, "fast", "kube-system")
            assert lease.spec.holder_identity == "a"
            first.cancel()
            await until(lambda: leading == ["a", "b"])
        finally:
            for task in (first, second):
                task.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
        lease = await client.get(LEASES, "fast", "kube-system")
        assert lease.spec.holder_identity == ""
        assert lease.spec.lease_transitions >= 1


async def test_a_lease_is_changed_by_compare_and_swap(tmp_path):
    async with api_server(tmp_path) as (_, client):
        spec = LeaseSpec(
            holder_identity="a", lease_duration_seconds=15, renew_time="2026-01-01T00:00:00.000000Z"
        )
        lease = Lease(metadata=ObjectMeta(name="x", namespace="kube-system"), spec=spec)
        made = await client.create(LEASES, lease)
        await client.update(LEASES, made)
        changed = Lease(
            metadata=made.metadata, spec=LeaseSpec(holder_identity="b", lease_duration_seconds=15)
        )
        first = await client.update(LEASES, changed)
        assert first.spec.holder_identity == "b"
        with pytest.raises(Conflict):
            await client.update(LEASES, changed)


async def test_events_are_written_and_counted(tmp_path):
    async with api_server(tmp_path) as (_, client):
        namespace: Namespace = await client.get(NAMESPACES, "default")
        recorder = EventRecorder(client, "fast-test")
        for _ in range(3):
            recorder.event(namespace, "Normal", "Tested", "text")
        await recorder.close(timeout_seconds=20)
        events = await client.list(EVENTS, "default")
        (event,) = [item for item in events.items if item.reason == "Tested"]
        assert (event.count, event.source.component) == (3, "fast-test")
        assert recorder.dropped == 0


async def test_without_a_token_everything_is_unauthorized(tmp_path):
    async with api_server(tmp_path) as (server, _):
        known = ClusterConfig.load(server.kubeconfig)
        async with KubeClient(ClusterConfig(known.server, tls=known.tls)) as stranger:
            with pytest.raises(Unauthorized):
                await stranger.list(IPENDPOINTS)


async def test_a_server_whose_certificate_is_not_trusted_gets_no_token(tmp_path):
    async with api_server(tmp_path) as (server, _):
        known = ClusterConfig.load(server.kubeconfig)
        async with KubeClient(ClusterConfig(known.server, known.credentials)) as suspicious:
            with pytest.raises(Unavailable, match="not trusted"):
                await suspicious.list(IPENDPOINTS)
