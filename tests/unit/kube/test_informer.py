"""The informer follows the server through every fault and never misses a change."""

from __future__ import annotations

import asyncio

import pytest

from fakes.nasty_server import Fault, NastyServer, Seen, nasty_server, status
from fast.api.ipendpoint import IpEndpoint
from fast.errors import InvalidConfig
from fast.kube import Change


def names(change: Change[IpEndpoint]) -> tuple[str | None, str | None]:
    return (
        change.old.metadata.name if change.old else None,
        change.new.metadata.name if change.new else None,
    )


async def test_lists_then_tells_additions_changes_and_deletions(run_informer, eventually):
    async with nasty_server() as nasty, run_informer(nasty) as informer:
        changes = []
        informer.add_handler(lambda change: changes.append(names(change)))
        await informer.wait_synced()
        nasty.put("b")
        nasty.put("b")
        nasty.remove("a")
        await eventually(lambda: len(changes) == 4)
        assert changes == [(None, "a"), (None, "b"), ("b", "b"), ("a", None)]
        assert set(informer.cache) == {"b"}


ALL_FAULTS = [fault for fault in Fault if fault not in {Fault.NONE, Fault.UNAUTHORIZED}]


@pytest.mark.parametrize("fault", ALL_FAULTS, ids=lambda fault: fault.name.lower())
async def test_after_the_fault_it_follows_on_and_misses_nothing(fault, run_informer, eventually):
    async with nasty_server(fault, Fault.NONE) as nasty, run_informer(nasty) as informer:
        await eventually(lambda: len(nasty.watches) == 2)
        nasty.put("afterwards")
        await eventually(lambda: "afterwards" in informer.cache)
        expected = set(nasty.objects) - set(informer.undecodable)
        assert set(informer.cache) == expected


async def test_every_fault_one_after_the_other(run_informer, eventually):
    async with nasty_server(*ALL_FAULTS, Fault.NONE) as nasty, run_informer(nasty) as informer:
        await eventually(lambda: len(nasty.watches) == len(ALL_FAULTS) + 1)
        nasty.put("afterwards")
        await eventually(lambda: "afterwards" in informer.cache)
        assert set(informer.cache) == set(nasty.objects) - {"odd"}


RESUMING = [
    Fault.RESET,
    Fault.BIG,
    Fault.INTERNAL_ERROR,
    Fault.THROTTLED,
    Fault.HALF_OPEN,
    Fault.CLOSE_AT_ONCE,
]


@pytest.mark.parametrize("fault", RESUMING, ids=lambda fault: fault.name.lower())
async def test_resumes_from_the_last_version_without_a_list(fault, run_informer, eventually):
    async with nasty_server(fault, Fault.NONE) as nasty, run_informer(nasty):
        await eventually(lambda: len(nasty.watches) == 2)
        assert len(nasty.lists) == 1
        assert nasty.watches[1].query["resourceVersion"] == str(nasty.version)


async def test_resumes_from_a_bookmark(run_informer, eventually):
    async with nasty_server(Fault.CLOSE, Fault.NONE) as nasty, run_informer(nasty):
        await eventually(lambda: len(nasty.watches) == 2)
        assert nasty.watches[1].query["resourceVersion"] == "16"


@pytest.mark.parametrize(
    "fault", [Fault.EXPIRED_EVENT, Fault.EXPIRED_STATUS, Fault.GARBAGE], ids=lambda f: f.name
)
async def test_a_list_after_an_expired_version_finds_deletions_nobody_told(fault, run_informer, eventually):
    async with nasty_server(fault, Fault.NONE) as nasty:
        nasty.put("goes", silent=True)
        first = True

        def remove_after_first_list(seen: Seen) -> None:
            nonlocal first
            if seen.is_watch and first:
                first = False
                nasty.remove("goes", silent=True)

        nasty.answer = remove_after_first_list
        async with run_informer(nasty) as informer:
            changes = []
            informer.add_handler(lambda change: changes.append(names(change)))
            await eventually(lambda: informer.relists == 2)
            assert changes == [(None, "a"), (None, "goes"), ("goes", None)]


async def test_an_object_made_anew_under_its_name_is_a_deletion_and_an_addition(run_informer, eventually):
    async with nasty_server(Fault.EXPIRED_EVENT, Fault.NONE) as nasty:
        nasty.answer = lambda seen: nasty.put("a", uid="another", silent=True) if seen.is_watch else None
        async with run_informer(nasty) as informer:
            changes = []
            informer.add_handler(
                lambda change: changes.append(
                    (change.old and change.old.metadata.uid, change.new and change.new.metadata.uid)
                )
            )
            await eventually(lambda: informer.relists == 2)
            assert changes == [(None, "uid-a"), ("uid-a", None), (None, "another")]


async def test_a_relist_of_what_is_known_tells_nothing(run_informer, eventually):
    async with nasty_server(Fault.EXPIRED_EVENT, Fault.NONE) as nasty, run_informer(nasty) as informer:
        changes = []
        informer.add_handler(changes.append)
        await eventually(lambda: informer.relists == 2)
        assert len(changes) == 1


async def test_an_object_that_does_not_fit_keeps_its_last_good_state(run_informer, eventually):
    async with nasty_server() as nasty, run_informer(nasty) as informer:
        await informer.wait_synced()
        nasty.put("a", spec={"pool": ["no", "text"]})
        nasty.put("b")
        await eventually(lambda: "b" in informer.cache)
        assert informer.cache["a"].spec.pool == "p"
        assert "str" in informer.undecodable["a"]
        nasty.put("a")
        await eventually(lambda: not informer.undecodable)


async def test_an_object_that_does_not_fit_is_not_taken_for_a_deleted_one(run_informer, eventually):
    async with nasty_server(Fault.EXPIRED_EVENT, Fault.NONE) as nasty:
        nasty.answer = lambda seen: nasty.put("a", spec={"pool": 1}, silent=True) if seen.is_watch else None
        async with run_informer(nasty) as informer:
            await eventually(lambda: informer.relists == 2)
            assert set(informer.cache) == {"a"}
            assert set(informer.undecodable) == {"a"}


async def test_a_list_that_expires_between_two_pages_begins_anew(run_informer, eventually):
    async with nasty_server() as nasty:
        pages = []

        def answer(seen: Seen):
            if not seen.is_list:
                return None
            pages.append((seen.query.get("continue"), seen.query.get("limit")))
            match len(pages):
                case 1:
                    return 200, nasty.page([nasty.objects["a"]], "token")
                case 2:
                    nasty.remove("a", silent=True)
                    nasty.put("c", silent=True)
                    return 410, status(410, "Expired")
            return None

        nasty.answer = answer
        async with run_informer(nasty) as informer:
            changes = []
            informer.add_handler(lambda change: changes.append(names(change)))
            await informer.wait_synced()
            assert pages == [(None, "500"), ("token", "500"), (None, "5000")]
            assert changes == [(None, "a"), (None, "c"), ("a", None)]


async def test_a_handler_added_late_is_told_what_is_known(run_informer, eventually):
    async with nasty_server() as nasty, run_informer(nasty) as informer:
        await informer.wait_synced()
        changes = []
        informer.add_handler(lambda change: changes.append(names(change)))
        assert changes == [(None, "a")]


async def test_a_handler_that_raises_stops_neither_the_others_nor_the_informer(run_informer, eventually):
    async with nasty_server() as nasty, run_informer(nasty) as informer:
        told = []

        def broken(change):
            raise RuntimeError("a bug")

        informer.add_handler(broken)
        informer.add_handler(told.append)
        nasty.put("b")
        await eventually(lambda: len(told) == 2)


async def test_a_transform_changes_what_is_kept(run_informer, eventually):
    def without_annotations(obj: IpEndpoint) -> IpEndpoint:
        obj.metadata.annotations.clear()
        return obj

    async with nasty_server() as nasty:
        nasty.put("padded", padding=100)
        async with run_informer(nasty, transform=without_annotations) as informer:
            await informer.wait_synced()
            assert informer.cache["padded"].metadata.annotations == {}


async def test_a_transform_that_raises_counts_as_an_object_that_does_not_fit(run_informer):
    def refuse(obj: IpEndpoint) -> IpEndpoint:
        raise InvalidConfig("not this one")

    async with nasty_server() as nasty, run_informer(nasty, transform=refuse) as informer:
        await informer.wait_synced()
        assert informer.undecodable == {"a": "not this one"}


async def test_waits_as_long_as_a_throttling_server_asks(run_informer, eventually):
    async with nasty_server(Fault.THROTTLED, Fault.NONE) as nasty:
        began = asyncio.get_running_loop().time()
        async with run_informer(nasty):
            await eventually(lambda: len(nasty.watches) == 2)
        assert asyncio.get_running_loop().time() - began >= 1.0


async def test_a_version_that_the_server_keeps_refusing_is_given_up(run_informer, eventually):
    async with (
        nasty_server(*[Fault.INTERNAL_ERROR] * 5, Fault.NONE) as nasty,
        run_informer(nasty) as informer,
    ):
        await eventually(lambda: informer.relists == 2)
        assert len(nasty.watches) in {5, 6}


async def test_watches_that_end_at_once_do_not_make_a_hot_loop(run_informer, eventually):
    async with nasty_server(Fault.CLOSE_AT_ONCE) as nasty, run_informer(nasty):
        await asyncio.sleep(0.6)
        assert len(nasty.watches) <= 20


async def test_last_contact_grows_stale_while_the_server_is_silent(run_informer, eventually):
    async with nasty_server() as nasty, run_informer(nasty) as informer:
        assert informer.last_contact == float("-inf")
        await informer.wait_synced()
        await eventually(lambda: len(nasty.watches) == 1)
        before = informer.last_contact
        nasty.put("b")
        await eventually(lambda: informer.last_contact > before)


async def test_the_event_loop_stays_responsive_under_a_burst(run_informer, eventually):
    async with nasty_server() as nasty, run_informer(nasty) as informer:
        await eventually(lambda: len(nasty.watches) == 1)
        for number in range(20_000):
            nasty.put(f"burst-{number}")
        gaps, loop = [], asyncio.get_running_loop()
        while len(informer.cache) < 20_001:
            began = loop.time()
            await asyncio.sleep(0)
            gaps.append(loop.time() - began)
        gaps.sort()
        assert gaps[int(len(gaps) * 0.9)] < 0.1


async def test_selectors_and_namespace_go_into_list_and_watch(run_informer, eventually):
    async with nasty_server() as nasty:
        async with run_informer(nasty, field_selector="spec.node=n1", label_selector="a=b"):
            await eventually(lambda: len(nasty.watches) == 1)
        for seen in (nasty.lists[0], nasty.watches[0]):
            assert seen.query["fieldSelector"] == "spec.node=n1"
            assert seen.query["labelSelector"] == "a=b"


async def test_stays_alive_while_the_server_refuses_connections(run_informer, eventually):
    async with nasty_server() as nasty:
        dead = NastyServer([Fault.NONE], url="http://127.0.0.1:9")
        async with run_informer(dead) as informer:
            await eventually(lambda: informer.failures >= 3)
            assert not informer.synced
        assert nasty.seen == []


async def test_an_informer_fails_from_its_first_failure_until_the_server_is_heard_again(
    run_informer, eventually
):
    faults = (Fault.CLOSE, *[Fault.INTERNAL_ERROR] * 5, Fault.NONE)
    async with nasty_server(*faults) as nasty, run_informer(nasty) as informer:
        await eventually(lambda: informer.failures >= 2)
        since = informer.failing_since
        assert since is not None
        assert since > informer.last_contact
        await eventually(lambda: informer.failing_since is None)
        assert informer.last_contact > since
