"""The CNI verbs of specification 1.1.0: ADD, DEL, CHECK, STATUS, GC, VERSION.

Order and roll-back live here. ``fast.ipam`` chooses addresses, ``fast.datapath`` wires pods, ``fast.agent`` has the
socket and the files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import structlog

from fast.api.ipendpoint import IpEndpoint
from fast.cni.cni_errors import CallError, Code, error_reply
from fast.cni.dependencies import Addresses, Collector, Datapath, Policies, Readiness, TombstoneStore
from fast.cni.environment import Invocation, parse_invocation
from fast.cni.frames import CniCall, CniReply
from fast.cni.network_config import (
    NEWEST_VERSION,
    SUPPORTED_VERSIONS,
    NetworkConfig,
    parse_config,
    requested_addresses,
)
from fast.cni.network_config import version_of as config_version_of
from fast.cni.results import Result, parse_result, result_of, sandbox_addresses
from fast.datapath.pod.identity import Endpoint, EndpointSpec
from fast.errors import AgentUnavailable, DatapathError, FastError, KubeError, NetnsGone
from fast.ipam import AttachmentKey, AttachmentLocks, finish
from fast.net import IPAddress

log = structlog.get_logger()


class Verbs:
    """Serves CNI calls: many attachments at once, one call at a time for each attachment.

    Args:
        addresses: Claims and releases.
        datapath: Wires pods.
        collector: Serves GC.
        tombstones: Keeps DELs that cannot be carried out yet.
        readiness: Whether ADD is served.
        policies: NetworkPolicy; None if it is switched off.
        locks: The one lock of each attachment, shared with address management and garbage collection.
    """

    def __init__(
        self,
        *,
        addresses: Addresses,
        datapath: Datapath,
        collector: Collector,
        tombstones: TombstoneStore,
        readiness: Readiness,
        locks: AttachmentLocks,
        policies: Policies | None = None,
    ) -> None:
        self._addresses = addresses
        self._datapath = datapath
        self._collector = collector
        self._tombstones = tombstones
        self._readiness = readiness
        self._locks = locks
        self._policies = policies

    async def dispatch(self, call: CniCall) -> CniReply:
        """Serve one call. Never raises: every failure becomes the specification's error object."""
        version = config_version_of(call.stdin)
        attachment = {
            key: call.env.get(f"CNI_{key.upper()}", "") for key in ("command", "containerid", "ifname")
        }
        try:
            invocation = parse_invocation(call.env, call.netns_path)
            if invocation.command == "VERSION":
                return version_reply(version)
            config = parse_config(call.stdin, invocation.command)
            return await self._serve(invocation, config, call)
        except FastError as error:
            log.warning("CNI call failed", **attachment, error=str(error), kind=type(error).__name__)
            return error_reply(error, version)
        except Exception as error:
            log.exception("CNI call failed unexpectedly", **attachment)
            return error_reply(error, version)

    async def _serve(self, invocation: Invocation, config: NetworkConfig, call: CniCall) -> CniReply:
        match invocation.command:
            case "ADD":
                result = await self.add(invocation, config)
                return CniReply(0, msgspec.json.encode(result) + b"\n")
            case "DEL":
                await self.delete(invocation.key, call)
            case "CHECK":
                await self.check(invocation, config)
            case "STATUS":
                self.status()
            case _:
                await self.collect(config)
        return CniReply(0)

    # ── ADD ──

    async def add(self, invocation: Invocation, config: NetworkConfig) -> Result:
        """ADD, in order. A failure leaves nothing of this call behind.

        Raises:
            FastError: The step that failed; ``retryable`` says whether trying again can help.
        """
        self._require_ready()
        previous = _previous_of(invocation, config)
        attachment = invocation.attachment
        if not attachment.addresses:
            attachment = replace(attachment, addresses=requested_addresses(config))
        key = attachment.key
        # The ADD is in flight from its arrival, before its turn: ADDs are told apart by their order.
        with self._addresses.attaching(*key):
            async with self._locks.hold(key):
                # An older DEL of this attachment would remove what is made now: carry it out first.
                await self._carry_out_tombstone(key)
                in_use = bool(self._addresses.held(*key))  # an earlier ADD was served: keep what it made
                records = await self._addresses.claim(attachment)
                endpoint = await self._wire(invocation, config, records, in_use=in_use)
        log.info("pod attached", containerid=key[0], ifname=key[1], addresses=[*map(str, endpoint.addresses)])
        return result_of(endpoint, invocation.netns, config, previous)

    async def _wire(
        self, invocation: Invocation, config: NetworkConfig, records: Sequence[IpEndpoint], *, in_use: bool
    ) -> Endpoint:
        """Make the endpoint in a thread; a failure or cancellation undoes the ADD, unless it was ``in_use`` before."""
        wiring: asyncio.Task[Endpoint] | None = None
        try:
            spec = _spec_of(invocation, config, records)
            if self._policies is not None:
                await self._policies.prepare(records)
            wiring = asyncio.create_task(asyncio.to_thread(self._datapath.attach, spec))
            return await asyncio.shield(wiring)
        except BaseException:
            await finish(self._take_back(invocation.key, wiring, in_use=in_use))
            raise

    async def _take_back(
        self, key: AttachmentKey, wiring: asyncio.Task[Endpoint] | None, *, in_use: bool
    ) -> None:
        """Undo an ADD once its thread has ended, since a thread cannot be cancelled."""
        if wiring is not None:
            await asyncio.wait([wiring])
        if in_use:
            return
        if wiring is not None and wiring.exception() is None:
            try:
                await asyncio.to_thread(self._datapath.detach, *key)
            except FastError as error:  # the address stays as long as the interface does
                log.warning("cancelled ADD not undone", containerid=key[0], ifname=key[1], error=str(error))
                return
        await self._addresses.unclaim(*key)

    # ── DEL ──

    async def delete(self, key: AttachmentKey, call: CniCall) -> bool:
        """DEL: remove the endpoint, then release what this attachment holds. If there is nothing, that is success.

        If the API server cannot be asked, or the datapath is not up yet, a tombstone keeps the call and DEL succeeds.

        Returns:
            Whether everything was carried out; False if a tombstone keeps the rest.

        Raises:
            DatapathError: The kernel refused; nothing was released. Retrying helps.
            CallError: Code 5, the tombstone cannot be written.
        """
        async with self._locks.hold(key):
            try:
                detached = await asyncio.to_thread(self._datapath.detach, *key)
                released = await self._addresses.release(*key)
            except (KubeError, AgentUnavailable) as error:
                log.warning(
                    "release postponed by a tombstone", containerid=key[0], ifname=key[1], error=str(error)
                )
                await self._leave_tombstone(key, call)
                return False
            try:
                await self._forget_tombstone(key)
            except CallError as error:  # harmless: an ADD of this attachment fails until it can be removed
                log.warning("tombstone stays", containerid=key[0], ifname=key[1], error=str(error))
        if detached or released:
            addresses = [record.metadata.name for record in released]
            log.info("pod detached", containerid=key[0], ifname=key[1], addresses=addresses)
        return True

    async def carry_out_tombstone(self, key: AttachmentKey) -> None:
        """Carry out the DEL that waits on disk for this attachment, if there is one, and remove its tombstone.

        Raises:
            CallError: Code 5, the tombstone cannot be read or removed.
            FastError: The DEL cannot be carried out now; its tombstone stays.
        """
        async with self._locks.hold(key):
            await self._carry_out_tombstone(key)

    # ── CHECK, STATUS, GC ──

    async def check(self, invocation: Invocation, config: NetworkConfig) -> None:
        """CHECK: record, interface, addresses, routes, programs and map entries are as ADD made them.

        Raises:
            FastError: Names what is missing.
        """
        self._require_ready()
        if not config.has_prev_result:
            raise CallError(Code.INVALID_CONFIG, "prevResult is missing: CHECK compares with it")
        expected = sandbox_addresses(parse_result(config.prev_result), invocation.ifname)
        async with self._locks.hold(invocation.key):
            held = {record.address for record in self._addresses.held(*invocation.key)}
            if held != set(expected):
                raise CallError(
                    Code.CHECK_FAILED,
                    f"prevResult has {_listed(expected)}, but this attachment holds {_listed(held)}",
                )
            try:
                await asyncio.to_thread(self._datapath.check, _spec(invocation, config, expected))
            except DatapathError as error:
                raise CallError(Code.CHECK_FAILED, str(error), type(error).__name__) from error

    def status(self) -> None:
        """STATUS: whether an ADD would be served.

        Raises:
            CallError: Code 50 or 51.
        """
        unmet = self._readiness.unmet()
        if unmet is None:
            return
        code = Code.LIMITED_CONNECTIVITY if unmet.limited_connectivity else Code.NOT_AVAILABLE
        raise CallError(code, unmet.reason)

    async def collect(self, config: NetworkConfig) -> None:
        """GC: remove the attachments that the runtime does not list."""
        self._require_ready()
        valid = frozenset((item.container_id, item.ifname) for item in config.valid_attachments or ())
        await self._collector.collect(config.name, valid)

    def _require_ready(self) -> None:
        unmet = self._readiness.unmet()
        if unmet is not None and not unmet.allows_add:
            raise AgentUnavailable(f"this node cannot take pods yet: {unmet.reason}")

    async def _carry_out_tombstone(self, key: AttachmentKey) -> None:
        with _disk_failures("an earlier DEL of this attachment may wait on disk, which cannot be read"):
            waits = await asyncio.to_thread(self._tombstones.waits, key)
        if waits:
            await asyncio.to_thread(self._datapath.detach, *key)
            await self._addresses.release(*key)
            await self._forget_tombstone(key)

    async def _forget_tombstone(self, key: AttachmentKey) -> None:
        with _disk_failures("the tombstone of a DEL that was carried out cannot be removed"):
            await asyncio.to_thread(self._tombstones.remove, key)

    async def _leave_tombstone(self, key: AttachmentKey, call: CniCall) -> None:
        with _disk_failures("the API server is away, and the tombstone of this DEL cannot be written"):
            await asyncio.to_thread(self._tombstones.leave, key, call)


@contextmanager
def _disk_failures(message: str) -> Iterator[None]:
    """Turn a refusal of the disk into the specification's error 5."""
    try:
        yield
    except OSError as error:
        raise CallError(Code.IO_FAILURE, f"{message}: {error.strerror}", str(error)) from error


def version_reply(version: str = NEWEST_VERSION) -> CniReply:
    """Answer VERSION."""
    answer = {"cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS}
    return CniReply(0, msgspec.json.encode(answer) + b"\n")


def _previous_of(invocation: Invocation, config: NetworkConfig) -> Result | None:
    """Read the result of an earlier plugin of the chain; refuse one that already made the interface."""
    if not config.has_prev_result:
        return None
    previous = parse_result(config.prev_result)
    if previous.ips or any(item.sandbox and item.name == invocation.ifname for item in previous.interfaces):
        raise CallError(
            Code.INVALID_CONFIG,
            f"an earlier plugin of network {config.name!r} has already made {invocation.ifname} or given it addresses; "
            "Fast makes both itself: put it first in the chain, with portmap, bandwidth or tuning behind it",
        )
    return previous


def _spec_of(invocation: Invocation, config: NetworkConfig, records: Sequence[IpEndpoint]) -> EndpointSpec:
    return _spec(invocation, config, tuple(record.address for record in records))


def _spec(invocation: Invocation, config: NetworkConfig, addresses: tuple[IPAddress, ...]) -> EndpointSpec:
    return EndpointSpec(
        container_id=invocation.container_id,
        ifname=invocation.ifname,
        netns_path=_netns_path(invocation),
        addresses=addresses,
        mtu=config.mtu or None,
        via_stack=config.runtime_config.bandwidth is not None,
    )


def _netns_path(invocation: Invocation) -> str:
    """Return the path at which this process opens the sandbox's namespace.

    fast-cni opens it and passes the descriptor. If it passed none, a path below /proc names a process that has ended,
    and possibly another one in this process's own PID namespace.
    """
    if not invocation.opened_netns and invocation.netns.startswith("/proc/"):
        raise NetnsGone(f"network namespace {invocation.netns!r} cannot be opened: its process has ended")
    return invocation.opened_netns or invocation.netns


def _listed(addresses: Iterable[IPAddress]) -> str:
    return ", ".join(sorted(map(str, addresses))) or "nothing"
