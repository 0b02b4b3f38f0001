"""What the verbs need from others, as protocols; the agent wires the real ones. No behaviour lives here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from fast.api.ipendpoint import IpEndpoint, PodRef
from fast.cni.frames import CniCall
from fast.datapath.pod.identity import Endpoint, EndpointSpec
from fast.ipam import AttachmentKey
from fast.net import IPAddress


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whom addresses are claimed for.

    Attributes:
        pod: None for a plain container, which takes from the default pool.
        addresses: The ones the runtime asked for; empty for any.
    """

    container_id: str
    ifname: str
    pod: PodRef | None = None
    addresses: tuple[IPAddress, ...] = ()


class Addresses(Protocol):
    """Address management, as the verbs see it."""

    def attaching(self, container_id: str, ifname: str) -> AbstractContextManager[None]:
        """Mark an ADD as in flight, so that no garbage collection touches what it is making."""

    async def claim(self, wanted: Wanted) -> Sequence[IpEndpoint]:
        """Claim one address of each family the pod's pools have; idempotent per (container_id, ifname).

        Raises:
            IPAMError, KubeError: Nothing is claimed then.
        """

    async def release(self, container_id: str, ifname: str) -> Sequence[IpEndpoint]:
        """Release what exactly this attachment holds; empty where it holds nothing.

        Raises:
            KubeError, AgentUnavailable: The API server cannot be asked; it may still hold addresses.
        """

    async def unclaim(self, container_id: str, ifname: str) -> None:
        """Undo what the claim of the ADD in flight did; what cannot be undone now, garbage collection finds."""

    def held(self, container_id: str, ifname: str) -> Sequence[IpEndpoint]:
        """Give what this attachment holds, by what the agent has seen."""


class Datapath(Protocol):
    """The kernel's side of an attachment. Blocking; called in threads."""

    def attach(self, spec: EndpointSpec) -> Endpoint:
        """Wire a pod; idempotent; on failure nothing is left."""

    def detach(self, container_id: str, ifname: str) -> bool:
        """Unwire it, also where its namespace is gone; False where there was nothing.

        Raises:
            AgentUnavailable: The node's datapath is not up yet.
            DatapathError: The kernel refused.
        """

    def check(self, spec: EndpointSpec) -> None:
        """Raise DatapathError where something of the wiring is missing."""


class Collector(Protocol):
    """Garbage collection on the runtime's word."""

    async def collect(self, network: str, valid: frozenset[AttachmentKey]) -> None:
        """Take down every attachment of this node's network that is not among the valid ones."""


class TombstoneStore(Protocol):
    """DELs that could not be carried through, on disk. Blocking (fsync)."""

    def leave(self, key: AttachmentKey, call: CniCall) -> None:
        """Keep the call until it is removed; OSError where the disk refuses."""

    def waits(self, key: AttachmentKey) -> bool:
        """Whether a DEL waits for this attachment; costs one stat(2). OSError where the disk refuses."""

    def remove(self, key: AttachmentKey) -> None:
        """Forget it; nothing happens where there is none. OSError where the disk refuses."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why the node should get no pods now.

    Attributes:
        reason: For people.
        limited_connectivity: Pods that already run may be cut off, too (STATUS answers 51, not 50).
        passing: STATUS tells it, but an ADD is tried all the same.
    """

    reason: str
    limited_connectivity: bool = False
    passing: bool = False


class Readiness(Protocol):
    """Whether the node can take pods."""

    def blocker(self) -> Blocker | None:
        """Give what stands in the way, or None."""
