"""Protocols for what the verbs call. The agent passes in the implementations; no behaviour lives here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from fast.api.ipendpoint import IpEndpoint
from fast.cni.frames import CniCall
from fast.datapath.pod.identity import Endpoint, EndpointSpec
from fast.ipam import Attachment, AttachmentKey


class Addresses(Protocol):
    """Address management. The caller of ``claim``, ``unclaim`` and ``release`` holds the attachment's lock."""

    def attaching(self, container_id: str, ifname: str) -> AbstractContextManager[None]:
        """Mark an ADD as in flight: garbage collection does not touch its records."""

    async def claim(self, attachment: Attachment) -> Sequence[IpEndpoint]:
        """Claim one address of each family that the pod's pools have. Idempotent for each attachment.

        An attachment without a pod takes from the default pool.

        Raises:
            IPAMError, KubeError: Nothing is claimed.
        """

    async def release(self, container_id: str, ifname: str) -> Sequence[IpEndpoint]:
        """Release what this attachment holds; empty if it holds nothing.

        Raises:
            KubeError, AgentUnavailable: The API server cannot be asked; the attachment may still hold addresses.
        """

    async def unclaim(self, container_id: str, ifname: str) -> None:
        """Undo the claim of the ADD in flight. Garbage collection finds what cannot be undone now."""

    def held(self, container_id: str, ifname: str) -> Sequence[IpEndpoint]:
        """Return what this attachment holds, as far as the agent has seen."""


class Policies(Protocol):
    """NetworkPolicy, as an ADD needs it."""

    async def prepare(self, records: Sequence[IpEndpoint]) -> None:
        """Have the pod's rules in the kernel before it has an interface.

        Raises:
            AgentUnavailable, DatapathError: They are not; the ADD is undone.
        """


class Datapath(Protocol):
    """The kernel's side of an attachment. Blocking; called in threads."""

    def attach(self, spec: EndpointSpec) -> Endpoint:
        """Wire a pod. Idempotent; a failure leaves nothing behind."""

    def detach(self, container_id: str, ifname: str) -> bool:
        """Remove the pod's wiring, even if its namespace is gone; False if there was none.

        Raises:
            AgentUnavailable: The node's datapath is not up yet.
            DatapathError: The kernel refused.
        """

    def check(self, spec: EndpointSpec) -> None:
        """Raise DatapathError if any part of the wiring is missing."""


class Collector(Protocol):
    """Garbage collection at the runtime's request."""

    async def collect(self, network: str, valid: frozenset[AttachmentKey]) -> None:
        """Remove every attachment of this node's network that is not in ``valid``."""


class TombstoneStore(Protocol):
    """DELs that could not be carried out, on disk. Blocking (fsync). Every method may raise OSError."""

    def leave(self, key: AttachmentKey, call: CniCall) -> None:
        """Keep the call until it is removed."""

    def waits(self, key: AttachmentKey) -> bool:
        """Return whether a DEL waits for this attachment; costs one stat(2)."""

    def remove(self, key: AttachmentKey) -> None:
        """Remove the tombstone; does nothing if there is none."""


@dataclass(frozen=True, slots=True)
class UnmetConditions:
    """Why the node should get no pods now: every readiness condition that is not met, as one.

    Attributes:
        reason: For people.
        limited_connectivity: Running pods may be cut off, too (STATUS answers 51, not 50).
        allows_add: STATUS reports it, but an ADD is still tried.
    """

    reason: str
    limited_connectivity: bool = False
    allows_add: bool = False


class Readiness(Protocol):
    """Whether the node can take pods."""

    def unmet(self) -> UnmetConditions | None:
        """Return the readiness conditions that are not met, or None."""
