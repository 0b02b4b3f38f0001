"""Events are written in the background, counted instead of repeated, and never in anybody's way."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

from fakes.nasty_server import Seen, nasty_server, status
from fast.api.core import ObjectReference, Pod
from fast.api.ips import Ips, IpsSpec
from fast.api.meta import ObjectMeta
from fast.kube import ClusterConfig, EventRecorder, KubeClient

POD = Pod(metadata=ObjectMeta(name="p", namespace="default", uid="u"))
POOL = Ips(metadata=ObjectMeta(name="pool", uid="v"), spec=IpsSpec(subnet="10.0.0.0/24"))


class EventStore:
    """Answers for Events, as an API server does."""

    def __init__(self) -> None:
        self.events: dict[str, dict] = {}
        self.away = False

    def __call__(self, seen: Seen):
        if self.away:
            return 503, status(503, "ServiceUnavailable")
        if seen.method == "POST":
            event = json.loads(seen.body)
            self.events[event["metadata"]["name"]] = event
            return 201, event
        name = seen.path.rpartition("/")[2]
        if name not in self.events:
            return 404, status(404, "NotFound")
        self.events[name].update(json.loads(seen.body))
        return 200, self.events[name]

    @property
    def told(self) -> list[tuple[str, str, int]]:
        return [(event["reason"], event["message"], event["count"]) for event in self.events.values()]


@asynccontextmanager
async def recording(**options):
    async with nasty_server() as nasty:
        store = EventStore()
        nasty.answer = store
        async with KubeClient(ClusterConfig(nasty.url), retry_seconds=0) as client:
            recorder = EventRecorder(client, "fast-agent", host="n1", **options)
            yield recorder, store, nasty
            await recorder.close()


async def test_an_event_says_what_happened_to_what_and_who_says_so():
    async with recording() as (recorder, store, nasty):
        recorder.event(POD, "Warning", "PoolExhausted", "no address left in pool")
        await recorder.close()
        (event,) = store.events.values()
    assert nasty.seen[0].path == "/api/v1/namespaces/default/events"
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "p",
        "namespace": "default",
        "uid": "u",
    }
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "PoolExhausted", 1)
    assert event["source"] == {"component": "fast-agent", "host": "n1"}
    assert event["firstTimestamp"] == event["lastTimestamp"]


async def test_the_same_event_again_counts_up():
    async with recording() as (recorder, store, _):
        for _ in range(3):
            recorder.event(POD, "Normal", "Same", "text")
        recorder.event(POD, "Normal", "Same", "other text")
        await recorder.close()
        assert store.told == [("Same", "text", 3), ("Same", "other text", 1)]


async def test_an_event_the_server_forgot_is_made_anew():
    async with recording() as (recorder, store, _):
        recorder.event(POD, "Normal", "Same", "text")
        await recorder.close()
        store.events.clear()
        recorder.event(POD, "Normal", "Same", "text")
        await recorder.close()
        assert store.told == [("Same", "text", 1)]


async def test_events_about_cluster_scoped_objects_live_in_the_default_namespace():
    async with recording() as (recorder, store, _):
        recorder.event(POOL, "Normal", "PoolLow", "text")
        await recorder.close()
        (event,) = store.events.values()
    assert event["metadata"]["namespace"] == "default"
    assert event["involvedObject"]["kind"] == "Ips"


async def test_a_reference_will_do_for_an_object():
    async with recording() as (recorder, store, _):
        recorder.event(ObjectReference(kind="Node", name="n1", uid="n1"), "Normal", "Ready", "text")
        await recorder.close()
        assert store.told == [("Ready", "text", 1)]


async def test_one_noisy_object_is_limited_and_others_are_not():
    now = 0.0
    async with recording(burst=5, refill_seconds=60, clock=lambda: now) as (recorder, store, _):
        for number in range(50):
            recorder.event(POD, "Normal", "Noise", f"number {number}")
        recorder.event(POOL, "Normal", "Quiet", "text")
        await recorder.close()
        assert len(store.events) == 6
        assert recorder.dropped == 45
        now = 60.0
        recorder.event(POD, "Normal", "Noise", "a minute later")
        await recorder.close()
        assert len(store.events) == 7


async def test_a_server_that_is_away_costs_events_and_nothing_else():
    async with recording() as (recorder, store, _):
        store.away = True
        recorder.event(POD, "Normal", "Lost", "text")
        await recorder.close()
        assert recorder.dropped == 1
        store.away = False
        recorder.event(POD, "Normal", "Kept", "text")
        await recorder.close()
        assert store.told == [("Kept", "text", 1)]


async def test_telling_of_something_nobody_can_name_is_no_error_of_the_caller():
    async with recording() as (recorder, store, _):
        recorder.event(object(), "Normal", "Odd", "text")
        await recorder.close()
        assert recorder.dropped == 1
        assert store.events == {}


async def test_more_events_than_the_queue_holds_are_dropped_without_waiting():
    async with recording(burst=10**6) as (recorder, store, _):
        store.away = True
        for number in range(1500):
            recorder.event(POD, "Normal", "Flood", str(number))
        assert recorder.dropped == 500


async def test_a_long_message_is_cut_to_what_the_server_takes():
    async with recording() as (recorder, store, _):
        recorder.event(POD, "Normal", "Long", "ä" * 2000)
        await recorder.close()
        (event,) = store.events.values()
    assert len(event["message"].encode()) <= 1024


async def test_close_gives_up_on_a_server_that_does_not_answer():
    async with nasty_server():
        server = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with KubeClient(ClusterConfig(url)) as client:
            recorder = EventRecorder(client, "x")
            recorder.event(POD, "Normal", "Stuck", "text")
            recorder.event(POD, "Normal", "Stuck", "other")
            async with asyncio.timeout(5):
                await recorder.close(timeout_seconds=0.1)
            assert recorder.dropped >= 1
        server.close()
