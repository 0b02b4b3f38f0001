"""Leader election: one leader at a time, taken over in time, given up in time."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from fakes.nasty_server import Seen, nasty_server, status
from fast.errors import InvalidConfig
from fast.kube import ClusterConfig, KubeClient, LeaderElector
from fast.kube.lease import Terms

QUICK = Terms(duration=2, renew_deadline=0.6, retry_period=0.05)


class LeaseStore:
    """Answers for one Lease, as an API server does; ``away`` makes it fail."""

    def __init__(self) -> None:
        self.lease: dict | None = None
        self.version = 0
        self.away = False
        self.writes = 0

    def __call__(self, seen: Seen):
        if self.away:
            return 500, status(500, "InternalError")
        if seen.method == "GET":
            return (200, self.lease) if self.lease else (404, status(404, "NotFound"))
        body = json.loads(seen.body)
        if seen.method == "POST":
            if self.lease:
                return 409, status(409, "AlreadyExists")
        elif body["metadata"]["resourceVersion"] != str(self.version):
            return 409, status(409, "Conflict")
        self.version += 1
        self.writes += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.lease = body
        return 200, body

    @property
    def holder(self) -> str:
        return (self.lease or {}).get("spec", {}).get("holderIdentity", "")


@asynccontextmanager
async def lease_store():
    async with nasty_server() as nasty:
        store = LeaseStore()
        nasty.answer = store
        async with KubeClient(ClusterConfig(nasty.url)) as client:
            yield store, client


def elector(client: KubeClient, identity: str, **options) -> LeaderElector:
    return LeaderElector(client, "kube-system", "fast", identity, **{"terms": QUICK, **options})


class Work:
    """Work under leadership that runs until cancelled."""

    def __init__(self) -> None:
        self.running = False
        self.starts = 0

    async def __call__(self) -> None:
        self.running, self.starts = True, self.starts + 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running = False


@asynccontextmanager
async def running(candidate: LeaderElector, work):
    task = asyncio.create_task(candidate.run(work))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_first_candidate_creates_the_lease_and_leads(eventually):
    async with lease_store() as (store, client):
        work = Work()
        candidate = elector(client, "a")
        async with running(candidate, work):
            await eventually(lambda: work.running)
            assert candidate.is_leader
            assert candidate.observed_holder == store.holder == "a"
            assert store.lease["spec"]["leaseDurationSeconds"] == 2
            assert "leaseTransitions" not in store.lease["spec"]


async def test_a_leader_renews_and_keeps_its_time_of_acquiring(eventually):
    async with lease_store() as (store, client):
        work = Work()
        async with running(elector(client, "a"), work):
            await eventually(lambda: work.running)
            first = store.lease["spec"]
            await eventually(lambda: store.writes >= 4)
            assert store.lease["spec"]["acquireTime"] == first["acquireTime"]
            assert store.lease["spec"]["renewTime"] > first["renewTime"]
            assert work.starts == 1


async def test_while_one_leads_no_other_does(eventually):
    async with lease_store() as (store, client):
        first, second = Work(), Work()
        async with running(elector(client, "a"), first):
            await eventually(lambda: first.running)
            async with running(elector(client, "b"), second):
                writes = store.writes
                await eventually(lambda: store.writes >= writes + 20)
                assert not second.running


async def test_a_clean_stop_hands_over_at_once(eventually):
    async with lease_store() as (store, client):
        first, second = Work(), Work()
        async with running(elector(client, "a", terms=Terms(duration=60)), first) as leader:
            await eventually(lambda: first.running)
            async with running(elector(client, "b"), second):
                leader.cancel()
                await eventually(lambda: second.running)
                assert not first.running
                assert store.holder == "b"
                assert store.lease["spec"]["leaseTransitions"] == 1


async def test_a_leader_that_cannot_renew_stops_its_work_before_its_time_is_over(eventually):
    async with lease_store() as (store, client):
        work = Work()
        candidate = elector(client, "a")
        loop = asyncio.get_running_loop()
        async with running(candidate, work):
            await eventually(lambda: work.running)
            store.away = True
            began = loop.time()
            await eventually(lambda: not work.running)
            assert loop.time() - began < QUICK.duration
            assert not candidate.is_leader
            store.away = False
            await eventually(lambda: work.running)
            assert work.starts == 2


async def test_a_leader_whose_lease_was_taken_stops_its_work(eventually):
    async with lease_store() as (store, client):
        work = Work()
        async with running(elector(client, "a"), work):
            await eventually(lambda: work.running)
            store.version += 1
            store.lease["metadata"]["resourceVersion"] = str(store.version)
            store.lease["spec"]["holderIdentity"] = "thief"
            await eventually(lambda: not work.running)
            assert store.holder == "thief"


async def test_a_dead_holders_lease_is_taken_over_after_its_duration_as_we_measured_it(eventually):
    async with lease_store() as (store, client):
        store.version = 1
        store.lease = {
            "metadata": {"name": "fast", "namespace": "kube-system", "resourceVersion": "1"},
            # its clock is far ahead of ours: its times must not matter
            "spec": {
                "holderIdentity": "dead",
                "leaseDurationSeconds": 60,
                "renewTime": "2999-01-01T00:00:00.000000Z",
                "leaseTransitions": 4,
            },
        }
        now = 1000.0
        work = Work()
        async with running(elector(client, "a", clock=lambda: now), work):
            await asyncio.sleep(0.3)
            now += 59
            await asyncio.sleep(0.3)
            assert not work.running
            now += 2
            await eventually(lambda: work.running)
            assert store.lease["spec"]["leaseTransitions"] == 5


async def test_a_leader_that_slept_past_its_time_knows_it_when_it_wakes(eventually):
    async with lease_store() as (store, client):
        now = 1000.0
        work = Work()
        async with running(elector(client, "a", clock=lambda: now), work):
            await eventually(lambda: work.running)
            store.away = True
            now += 3600  # suspended
            await eventually(lambda: not work.running)


async def test_work_that_ends_by_itself_ends_the_run_and_releases_the_lease():
    async with lease_store() as (store, client):

        async def work() -> None:
            pass

        async with asyncio.timeout(10):
            await elector(client, "a").run(work)
        assert store.holder == ""


async def test_an_error_of_the_work_is_raised_and_the_lease_released():
    async with lease_store() as (store, client):

        async def work() -> None:
            raise RuntimeError("a bug")

        with pytest.raises(RuntimeError, match="a bug"):
            await elector(client, "a").run(work)
        assert store.holder == ""


async def test_of_many_candidates_starting_at_once_exactly_one_leads(eventually):
    async with lease_store() as (_, client):
        works = [Work() for _ in range(8)]
        tasks = [asyncio.create_task(elector(client, f"c{n}").run(work)) for n, work in enumerate(works)]
        try:
            await eventually(lambda: any(work.running for work in works))
            for _ in range(50):
                await asyncio.sleep(0.01)
                assert sum(work.running for work in works) == 1
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("terms", [(10, 10, 2), (15, 2, 2), (15, 10, 0)])
def test_terms_that_cannot_be_safe_are_refused(terms):
    with pytest.raises(InvalidConfig):
        Terms(*terms)
