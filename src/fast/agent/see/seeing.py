"""Connects the parts of this package with the node's maps, and keeps them running. It can fail without harm to pods."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from fast.agent.see.drop_table import Drops, name_drops, packets_not_shown
from fast.agent.see.drop_watch import DeviceDrops, DropWatch, Tell
from fast.agent.see.event_log import EventLog
from fast.agent.see.event_pump import EventPump
from fast.agent.see.holders import Holders
from fast.agent.see.pod_devices import PodDevices
from fast.agent.see.traffic_event import EventNamer
from fast.agent.see.traffic_server import SOCKET_NAME, TrafficServer
from fast.api.ipendpoint import IpEndpoint
from fast.datapath.bpf.drop_maps import DropCounts, EventBudgets, ListenedEvents
from fast.datapath.bpf.event_ring import EventReader
from fast.datapath.bpf.layout import Event, EventSwitch, LocalPod
from fast.datapath.bpf.maps import LocalPods, Metrics
from fast.errors import DatapathError
from fast.net import IPAddress

log = structlog.get_logger()

_LOOK_SECONDS = 10.0
_CARE_SECONDS = 2.0
#: Groups of drops in one answer.
_MOST_GROUPS = 2000
_SWITCHES = {"flow": EventSwitch.NEW_FLOW, "sample": EventSwitch.SAMPLE}


class DropsAnswer(msgspec.Struct, rename="camel"):
    """The answer to ``/drops``: the newest groups, and how many packets are in none of them."""

    drops: list[Drops]
    not_shown: int


class Seeing:
    """Everything that the agent shows of the traffic.

    Args:
        maps: Where the maps are pinned.
        run_dir: Where the socket is made.
        records: The records of the cluster by name, as they are now.
        tell: Writes a Warning Event ``PacketsDropped`` about a pod.
        registry: Of the metrics.
    """

    def __init__(
        self,
        maps: Path,
        run_dir: Path,
        records: Mapping[str, IpEndpoint],
        tell: Tell,
        registry: CollectorRegistry,
    ) -> None:
        self._maps = maps
        self.holders = Holders(records, time.monotonic_ns)
        self._devices = PodDevices(self._local_pods)
        self._namer = EventNamer(self.holders, self._devices.addresses, time.monotonic_ns, time.time_ns)
        self._events = EventLog(self._listen_to)
        self._watch = DropWatch(self._namer, tell, time.monotonic_ns, registry)
        self._server = TrafficServer(run_dir / SOCKET_NAME, self._events, self._answer)
        self._pump = EventPump(lambda: EventReader.open(maps), self._deliver, self._events.missed)
        self._untold = 0

    async def run(self) -> None:
        """Run until cancelled. Start it once the maps are there."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump.run())
                group.create_task(self._look_now_and_then())
                group.create_task(self._care())
        finally:
            await self._server.stop()

    async def _care(self) -> None:
        """Keep the socket, and the switch of events, as they have to be; tell listeners what they miss."""
        told = ""
        while True:
            try:
                if not self._server.is_started:
                    await self._server.start()
                await self._server.ensure_socket()
                self._listen_to(self._events.kinds)
                self._tell_untold()
                told = ""
            except (OSError, DatapathError) as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("the traffic cannot be shown; trying again", error=told)
            await asyncio.sleep(_CARE_SECONDS)

    async def _look_now_and_then(self) -> None:
        told = ""
        while True:
            try:
                self._watch.tell(await asyncio.to_thread(self._fresh))
                self._devices.refresh()
                told = ""
            except DatapathError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("counts of drops cannot be read; trying again", error=told)
            await asyncio.sleep(_LOOK_SECONDS)

    def _fresh(self) -> dict[int, DeviceDrops]:
        with DropCounts.open(self._maps) as counts:
            return self._watch.fresh(dict(counts.items()))

    def _deliver(self, events: Sequence[Event]) -> None:
        self._events.add(map(self._namer.name, events))

    def _listen_to(self, kinds: Iterable[str]) -> None:
        """Have the programs tell of these kinds."""
        wanted = EventSwitch.NONE
        for kind in kinds:
            wanted |= _SWITCHES.get(kind, EventSwitch.NONE)
        with contextlib.suppress(DatapathError), ListenedEvents.open(self._maps) as listened:
            listened.set(wanted)

    def _tell_untold(self) -> None:
        with EventBudgets.open(self._maps) as budgets:
            untold = budgets.untold()
        if untold > self._untold and self._events.kinds:
            self._events.missed(untold - self._untold)
        self._untold = untold

    def _local_pods(self) -> list[tuple[IPAddress, LocalPod]]:
        try:
            with LocalPods.open(self._maps) as pods:
                return list(pods.items())
        except DatapathError:
            return []

    def _answer(self) -> bytes:
        with DropCounts.open(self._maps) as found, Metrics.open(self._maps) as metrics:
            counts = dict(found.items())
            dropped = sum(metric.packets for (reason, _), metric in metrics.read().items() if reason.is_drop)
        newest = sorted(counts, key=lambda key: counts[key].last_ns, reverse=True)[:_MOST_GROUPS]
        shown = {key: counts[key] for key in newest}
        named = name_drops(shown, self._namer, time.monotonic_ns())
        return msgspec.json.encode(DropsAnswer(named, packets_not_shown(shown, dropped)))
