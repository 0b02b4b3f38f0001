"""What ``fast.ipam.store.record_store.Store`` promises, kept by the fake and by the real one on an API server alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import msgspec
import pytest

from fakes.store import FakeCluster, FakeStore, a_pool
from fast.api.crds import manifests
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec
from fast.api.meta import ObjectMeta
from fast.api.resources import IPENDPOINTS, IPSES
from fast.errors import Conflict, NotFound
from fast.ipam import KubeStore, Store
from fast.ipam.rules.sticky_keys import sticky_labels
from fast.kube import ClusterConfig, KubeClient
from unit.apiserver.process import Server, running

_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME, OTHER = "10.244.10.0", "10.244.10.1"


@dataclass
class Pair:
    """Two processes' stores on one cluster."""

    mine: Store
    others: Store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("apiserver")) as made:
        client = made.client()
        for definition in manifests().values():
            assert client.post(_DEFINITIONS, definition).status == 201
        client.close()
        yield made


async def _real(server: Server) -> AsyncIterator[Pair]:
    async with KubeClient(ClusterConfig.load(server.kubeconfig)) as client:
        for resource in (IPENDPOINTS, IPSES):
            for item in (await client.list(resource)).items:
                await client.delete(resource, item.metadata.name)
        await client.create(IPSES, a_pool("small"))
        stores = KubeStore(client), KubeStore(client)
        following = [asyncio.create_task(store.run()) for store in stores]
        for store in stores:
            await store.wait_synced()
        yield Pair(*stores)
        for task in following:
            task.cancel()
        await asyncio.wait(following)


@pytest.fixture(params=["fake", "real"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    if request.param == "fake":
        cluster = FakeCluster()
        cluster.put_pool(a_pool("small"))
        yield Pair(FakeStore(cluster), FakeStore(cluster))
    else:
        async for pair in _real(request.getfixturevalue("server")):
            yield pair


def record(name: str = NAME, sticky_key: str = "") -> IpEndpoint:
    metadata = ObjectMeta(name=name, labels=sticky_labels(sticky_key))
    return IpEndpoint(
        metadata=metadata, spec=IpEndpointSpec(pool="small", container_id="c1", sticky_key=sticky_key)
    )


def held_by(known: IpEndpoint, container_id: str) -> IpEndpoint:
    spec = msgspec.structs.replace(known.spec, container_id=container_id)
    return IpEndpoint(metadata=known.metadata, spec=spec)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 -- what a view shows has no event
            await asyncio.sleep(0.005)


async def test_the_view_shows_at_once_what_this_process_writes_and_soon_what_others_write(pair: Pair):
    made = await pair.mine.create(record())
    assert pair.mine.endpoints[NAME] == made
    await until(lambda: pair.others.endpoints.get(NAME) == made)
    changed = await pair.mine.replace(held_by(made, "c2"))
    assert pair.mine.endpoints[NAME].spec.container_id == "c2"
    await until(lambda: pair.others.endpoints[NAME] == changed)
    await pair.mine.delete(changed)
    assert NAME not in pair.mine.endpoints
    await until(lambda: NAME not in pair.others.endpoints)


async def test_a_second_record_of_a_name_is_refused(pair: Pair):
    await pair.mine.create(record())
    with pytest.raises(Conflict) as refusal:
        await pair.others.create(record())
    assert refusal.value.already_exists


@pytest.mark.parametrize("write", ["replace", "delete"])
async def test_a_write_is_refused_where_the_record_changed_since(pair: Pair, write: str):
    made = await pair.mine.create(record())
    await pair.mine.replace(held_by(made, "c2"))
    with pytest.raises(Conflict) as refusal:
        await getattr(pair.others, write)(held_by(made, "c3"))
    assert not refusal.value.already_exists
    assert (await pair.mine.refresh(NAME)).spec.container_id == "c2"  # type: ignore[union-attr]


@pytest.mark.parametrize("write", ["replace", "delete"])
async def test_a_write_to_a_record_that_is_gone_says_so_and_hides_it(pair: Pair, write: str):
    made = await pair.mine.create(record())
    await until(lambda: NAME in pair.others.endpoints)
    await pair.mine.delete(made)
    with pytest.raises(NotFound):
        await getattr(pair.others, write)(held_by(made, "c2"))
    assert NAME not in pair.others.endpoints


async def test_a_record_of_the_same_name_made_anew_is_another_one(pair: Pair):
    first = await pair.mine.create(record())
    await pair.mine.delete(first)
    second = await pair.others.create(record())
    assert second.metadata.uid != first.metadata.uid
    with pytest.raises((Conflict, NotFound)):
        await pair.mine.delete(first)
    assert await pair.mine.refresh(NAME) == second


async def test_reading_past_the_view_shows_what_is_there_in_the_view(pair: Pair):
    made = await pair.others.create(record())
    assert await pair.mine.refresh(NAME) == made == pair.mine.endpoints[NAME]
    assert await pair.mine.refresh(OTHER) is None
    await pair.others.delete(made)
    assert await pair.mine.refresh(NAME) is None
    assert NAME not in pair.mine.endpoints


async def test_records_of_a_sticky_key_are_read_past_the_view(pair: Pair):
    made = await pair.others.create(record(sticky_key="set-uid/0"))
    await pair.others.create(record(OTHER, sticky_key="set-uid/1"))
    await pair.mine.refresh_sticky("set-uid/0")
    assert pair.mine.endpoints[NAME] == made


async def test_the_names_of_a_pools_records_are_read_past_the_view(pair: Pair):
    await pair.others.create(record())
    assert set(await pair.mine.names_in_pool("small")) == {NAME}
    assert not await pair.mine.names_in_pool("other")


async def test_subscribers_are_told_of_every_change_of_the_view_in_order(pair: Pair):
    seen: list[tuple[str, str]] = []
    pair.mine.subscribe(
        lambda change: seen.append(
            (
                change.old.spec.container_id if change.old else "",
                change.new.spec.container_id if change.new else "",
            )
        ),
        lambda change: None,
    )
    made = await pair.mine.create(record())
    await pair.mine.delete(await pair.mine.replace(held_by(made, "c2")))
    assert seen == [("", "c1"), ("c1", "c2"), ("c2", "")]
    await pair.others.create(record(OTHER))
    await until(lambda: ("", "c1") in seen[3:])


async def test_the_pools_are_in_the_view(pair: Pair):
    assert list(pair.mine.pools) == ["small"]
