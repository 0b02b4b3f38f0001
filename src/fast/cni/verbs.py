"""The CNI verbs: ADD, DEL, CHECK, STATUS, GC, VERSION, each in the words of the specification 1.1.0.

Order and roll-back live here. How an address is chosen is ipam's, how a pod is wired is the datapath's, bytes and
sockets are the agent's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import structlog

from fast.api.ipendpoint import IpEndpoint
from fast.cni.cni_errors import CallError, Code, error_reply
from fast.cni.dependencies import Addresses, Collector, Datapath, Readiness, TombstoneStore, Wanted
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
from fast.cni.results import AttachedPod, Result, parse_result, result_of, sandbox_addresses
from fast.datapath.pod.endpoint import GATEWAY4, GATEWAY6
from fast.datapath.pod.identity import Endpoint, EndpointSpec
from fast.errors import AgentUnavailable, DatapathError, FastError, KubeError
from fast.ipam import AttachmentKey, AttachmentLocks
from fast.net import IPAddress

log = structlog.get_logger()

_IPV4 = 4


class Verbs:
    """Serves CNI calls. Safe to be called for many attachments at once; calls for one attachment take turns."""

    def __init__(
        self,
        *,
        addresses: Addresses,
        datapath: Datapath,
        collector: Collector,
        tombstones: TombstoneStore,
        readiness: Readiness,
        locks: AttachmentLocks,
    ) -> None:
        self._addresses = addresses
        self._datapath = datapath
        self._collector = collector
        self._tombstones = tombstones
        self._readiness = readiness
        self._locks = locks

    async def dispatch(self, call: CniCall) -> CniReply:
        """Serve one call. Never raises: whatever fails becomes the specification's error object."""
        version = config_version_of(call.stdin)
        attachment = {
            key: call.env.get(f"CNI_{key.upper()}", "") for key in ("command", "containerid", "ifname")
        }
        try:
            invocation = parse_invocation(call.env)
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
                await self.delete((invocation.container_id, invocation.ifname), call)
            case "CHECK":
                await self.check(invocation, config)
            case "STATUS":
                self.status()
            case _:
                await self.collect(config)
        return CniReply(0)

    async def add(self, invocation: Invocation, config: NetworkConfig) -> Result:
        """ADD: claim addresses, wire the pod, tell what was made. On failure nothing of this call is left.

        Raises:
            FastError: Whatever stood in the way; retrying helps where its class says so.
        """
        self._require_ready()
        previous = _previous_of(invocation, config)
        key = (invocation.container_id, invocation.ifname)
        wanted = Wanted(*key, invocation.pod, invocation.addresses or requested_addresses(config))
        with self._addresses.attaching(*key):  # from its arrival on: ADDs are told apart by their order
            async with self._locks.hold(key):
                endpoint = await self._attach(invocation, config, wanted)
        log.info("pod attached", containerid=key[0], ifname=key[1], addresses=[*map(str, endpoint.addresses)])
        return result_of(_attached(invocation, endpoint), config.cni_version, config.dns, previous)

    async def _attach(self, invocation: Invocation, config: NetworkConfig, wanted: Wanted) -> Endpoint:
        """Claim, then wire; on failure nothing of it is left."""
        key = (wanted.container_id, wanted.ifname)
        # Race: a DEL of this attachment that still waits on disk would later take down what is made now.
        await self._carry_out_tombstone(key)
        held_before = bool(self._addresses.held(*key))
        records = await self._addresses.claim(wanted)
        spec = _spec_of(invocation, config, records)
        wiring = asyncio.create_task(asyncio.to_thread(self._datapath.attach, spec))
        try:
            return await asyncio.shield(wiring)
        except BaseException:
            await asyncio.shield(self._take_back(key, wiring, in_use=held_before))
            raise

    async def _take_back(self, key: AttachmentKey, wiring: asyncio.Task[Endpoint], *, in_use: bool) -> None:
        """Undo an ADD that failed or was cancelled, once its thread has ended: that cannot be called back.

        Where an earlier ADD of the attachment was served, what it made may be in use: only a DEL ends that.
        """
        await asyncio.wait([wiring])
        if in_use:
            return
        if wiring.exception() is None:
            try:
                await asyncio.to_thread(self._datapath.detach, *key)
            except FastError as error:  # the address stays as long as the interface does
                log.warning("cancelled ADD not undone", containerid=key[0], ifname=key[1], error=str(error))
                return
        await self._addresses.unclaim(*key)

    async def delete(self, key: AttachmentKey, call: CniCall) -> bool:
        """DEL: unwire, then release exactly what this attachment holds. Nothing there is success.

        Where the API server cannot be asked, or the datapath is not up yet, a tombstone keeps the call and DEL
        succeeds.

        Returns:
            Whether everything was carried out; False where a tombstone keeps the rest.

        Raises:
            DatapathError: The kernel refused; nothing was released. Retrying helps.
            CallError: Code 5, the tombstone cannot be written or removed.
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
            await self._forget_tombstone(key)
        if detached or released:
            addresses = [record.metadata.name for record in released]
            log.info("pod detached", containerid=key[0], ifname=key[1], addresses=addresses)
        return True

    async def carry_out_tombstone(self, key: AttachmentKey) -> None:
        """Carry out the DEL that waits on disk for this attachment, if one still does; then forget it.

        Raises:
            CallError: Code 5, the tombstone cannot be read or removed.
            FastError: It cannot be carried out now; it waits on.
        """
        async with self._locks.hold(key):
            await self._carry_out_tombstone(key)

    async def check(self, invocation: Invocation, config: NetworkConfig) -> None:
        """CHECK: the reservation, interface, addresses, routes, programs and map entries are as ADD made them.

        Raises:
            FastError: What is missing.
        """
        self._require_ready()
        if not config.has_prev_result:
            raise CallError(Code.INVALID_CONFIG, "prevResult is missing: CHECK compares with it")
        expected = sandbox_addresses(parse_result(bytes(config.prev_result)), invocation.ifname)
        key = (invocation.container_id, invocation.ifname)
        async with self._locks.hold(key):
            reserved = {record.address for record in self._addresses.held(*key)}
            if reserved != set(expected):
                raise CallError(
                    Code.CHECK_FAILED,
                    f"prevResult has {_listed(expected)}, but reserved for this attachment is {_listed(reserved)}",
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
        blocker = self._readiness.blocker()
        if blocker is None:
            return
        code = Code.LIMITED_CONNECTIVITY if blocker.limited_connectivity else Code.NOT_AVAILABLE
        raise CallError(code, blocker.reason)

    async def collect(self, config: NetworkConfig) -> None:
        """GC: take down what the runtime does not know any more."""
        self._require_ready()
        valid = frozenset((item.container_id, item.ifname) for item in config.valid_attachments or ())
        await self._collector.collect(config.name, valid)

    def _require_ready(self) -> None:
        blocker = self._readiness.blocker()
        if blocker is not None and not blocker.passing:
            raise AgentUnavailable(f"this node cannot take pods yet: {blocker.reason}")

    async def _carry_out_tombstone(self, key: AttachmentKey) -> None:
        with _disk_failures("an earlier DEL of this attachment may wait on disk, which cannot be read"):
            waits = self._tombstones.waits(key)
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
    """Make a refusal of the disk the specification's error 5."""
    try:
        yield
    except OSError as error:
        raise CallError(Code.IO_FAILURE, f"{message}: {error.strerror}", str(error)) from error


def version_reply(version: str = NEWEST_VERSION) -> CniReply:
    """Answer VERSION."""
    answer = {"cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS}
    return CniReply(0, msgspec.json.encode(answer) + b"\n")


def _previous_of(invocation: Invocation, config: NetworkConfig) -> Result | None:
    """The result of an earlier plugin of the chain, if Fast can stand behind it."""
    if not config.has_prev_result:
        return None
    previous = parse_result(bytes(config.prev_result))
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
        netns_path=invocation.netns,
        addresses=addresses,
        mtu=config.mtu or None,
        via_stack=config.runtime_config.bandwidth is not None,
    )


def _attached(invocation: Invocation, endpoint: Endpoint) -> AttachedPod:
    return AttachedPod(
        ifname=invocation.ifname,
        netns=invocation.netns,
        pod_mac=endpoint.pod_mac,
        host_ifname=endpoint.host_device,
        host_mac=endpoint.host_mac,
        mtu=endpoint.mtu,
        addresses=endpoint.addresses,
        gateways=tuple(GATEWAY4 if item.version == _IPV4 else GATEWAY6 for item in endpoint.addresses),
    )


def _listed(addresses: Sequence[IPAddress] | set[IPAddress]) -> str:
    return ", ".join(sorted(map(str, addresses))) or "nothing"
