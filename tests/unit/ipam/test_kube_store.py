"""The view of a store, where the watch overtakes answers, or does not show what it should."""

from __future__ import annotations

import asyncio

import pytest

from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec
from fast.api.meta import ObjectMeta
from fast.errors import NotFound, Unavailable
from fast.ipam import KubeStore
from fast.ipam.store.kube_store import SETTLE_AFTER_SECONDS

NAME = "10.244.10.0"


def record(version: int, container_id: str = "c1", uid: str = "uid-1") -> IpEndpoint:
    metadata = ObjectMeta(name=NAME, uid=uid, resource_version=str(version))
    return IpEndpoint(metadata=metadata, spec=IpEndpointSpec(pool="small", container_id=container_id))


class Server:
    """An API server with one record, which answers when the test lets it: as it was when the request came.

    Attributes:
        record: The truth; None where it is deleted.
        answers: Set while answers are on their way; cleared, they wait.
        away: No request is served.
    """

    def __init__(self) -> None:
        self.record: IpEndpoint | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.away = False
        self.gets = 0

    async def _answer(self) -> IpEndpoint:
        if self.away:
            raise Unavailable("no route")
        answer = self.record
        await self.answers.wait()
        if answer is None:
            raise NotFound("not found", status=404)
        return answer

    async def get(self, resource, name):
        self.gets += 1
        return await self._answer()

    async def create(self, resource, endpoint):
        self.record = record(5, endpoint.spec.container_id)
        return await self._answer()

    async def update(self, resource, endpoint):
        self.record = record(7, endpoint.spec.container_id)
        return await self._answer()

    async def delete(self, resource, name, **preconditions):
        self.record = None
        await self.answers.wait()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Setting:
    """A store, what its watch shows it, and the server behind both."""

    def __init__(self) -> None:
        self.server, self.clock = Server(), Clock()
        self.store = KubeStore(self.server, clock=self.clock)

    def watch_shows(self, shown: IpEndpoint | None) -> None:
        informer = self.store.endpoint_informer
        if shown is None:
            informer._drop(NAME)
        else:
            informer._put(shown)

    def view(self) -> str:
        """The version that the view shows; empty where it shows none."""
        shown = self.store.endpoints.get(NAME)
        return shown.metadata.resource_version if shown is not None else ""

    async def while_it_answers(self, request, *shown: IpEndpoint | None):
        """Send a request, let the watch show something, then let the answer come."""
        self.server.answers.clear()
        asking = asyncio.create_task(request)
        await asyncio.sleep(0)
        for item in shown:
            self.watch_shows(item)
        self.server.answers.set()
        return await asking

    async def settled(self) -> str:
        self.clock.now += SETTLE_AFTER_SECONDS
        await self.store.settle()
        return self.view()


@pytest.fixture
async def setting():
    return Setting()


# ── the watch overtakes an answer ──


async def test_an_answer_does_not_bring_back_what_the_watch_has_shown_to_be_gone(setting):
    setting.server.record = record(5)
    setting.watch_shows(record(5))
    found = await setting.while_it_answers(setting.store.refresh(NAME), None)
    assert (found, setting.view()) == (None, "")


async def test_nor_does_the_answer_to_a_write_of_a_record_that_others_have_deleted_since(setting):
    setting.watch_shows(record(5))
    await setting.while_it_answers(setting.store.replace(record(5, "c2")), record(7, "c2"), None)
    assert setting.view() == ""
    await setting.while_it_answers(setting.store.create(record(0)), record(5), None)
    assert setting.view() == ""


async def test_an_answer_does_not_overrule_what_the_watch_has_shown_to_be_newer(setting):
    setting.server.record = record(5)
    setting.watch_shows(record(5))
    found = await setting.while_it_answers(setting.store.refresh(NAME), record(8, "c2"))
    assert (found.metadata.resource_version, setting.view()) == ("8", "8")


async def test_an_answer_that_a_record_is_gone_does_not_hide_one_that_was_made_since(setting):
    setting.watch_shows(record(5))
    found = await setting.while_it_answers(setting.store.refresh(NAME), None, record(9, uid="uid-2"))
    assert (found.metadata.uid, setting.view()) == ("uid-2", "9")


async def test_what_is_read_live_is_shown_before_the_watch_shows_it(setting):
    setting.watch_shows(record(5))
    setting.server.record = record(8, "c2")
    await setting.store.refresh(NAME)
    assert setting.view() == "8"
    setting.watch_shows(record(6))  # an event of the past
    assert setting.view() == "8"


# ── own writes that the watch has not shown ──


async def test_a_write_that_the_watch_has_shown_is_settled_without_asking(setting):
    await setting.store.create(record(0))
    setting.watch_shows(record(5))
    assert await setting.settled() == "5"
    await setting.while_it_answers(setting.store.replace(record(5, "c2")), record(7, "c2"))
    assert await setting.settled() == "7"
    await setting.while_it_answers(setting.store.delete(record(7)), None)
    assert await setting.settled() == ""
    assert setting.server.gets == 0


async def test_a_write_that_the_watch_is_slow_to_show_stays_in_the_view(setting):
    """As during a list of many pages, whose later ones may have it."""
    await setting.store.create(record(0))
    assert await setting.settled() == "5"
    assert await setting.settled() == "5"


async def test_a_record_that_came_and_went_between_two_lists_leaves_the_view(setting):
    await setting.store.create(record(0))
    setting.server.record = None
    assert await setting.settled() == ""
    setting.watch_shows(record(4))  # older than all that is known: yet nothing is known any more
    assert setting.view() == "4"


async def test_a_deleted_record_is_hidden_as_long_as_the_watch_still_shows_it(setting):
    setting.watch_shows(record(5))
    await setting.store.delete(record(5))
    for _ in range(3):
        assert await setting.settled() == ""
    setting.watch_shows(None)
    assert setting.view() == ""


async def test_nothing_is_settled_while_the_api_server_is_away(setting):
    await setting.store.create(record(0))
    setting.server.away = True
    with pytest.raises(Unavailable):
        await setting.settled()
    assert setting.view() == "5"
