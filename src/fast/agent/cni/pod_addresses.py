"""Address management for the CNI verbs: admission and claims by ``fast.ipam``, Events on pods that get no address."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from fast.agent.cni.node_pods import NodePods
from fast.api.core import ObjectReference
from fast.api.ipendpoint import IpEndpoint, PodRef
from fast.errors import AgentUnavailable, InvalidConfig, IPAMError, PodNotEligible, PoolExhausted
from fast.ipam import Attachment, ClaimRequest, Ipam
from fast.kube import EventRecorder


class NodeAddresses:
    """The addresses of this node's attachments (``fast.cni.dependencies.Addresses``)."""

    def __init__(
        self,
        ipam: Ipam,
        pods: NodePods,
        events: EventRecorder,
        *,
        synced: Callable[[], bool],
        compared: Callable[[], bool] = lambda: True,
    ) -> None:
        """Wrap ``ipam``.

        Args:
            ipam: The node's address management, which asks ``pods``.
            pods: The view of this node's pods.
            events: Tells pods why they got no address.
            synced: Whether all records and pools have been read; nothing may be decided before.
            compared: Whether the node's sandboxes were compared with the records; before that no address is given, as
                a live sandbox may have it without a record.
        """
        self._ipam = ipam
        self._pods = pods
        self._events = events
        self._synced = synced
        self._compared = compared

    def attaching(self, container_id: str, ifname: str) -> AbstractContextManager[None]:
        """Mark an ADD as in flight."""
        return self._ipam.attaching(container_id, ifname)

    async def claim(self, attachment: Attachment) -> tuple[IpEndpoint, ...]:
        """Claim. A failure that a user can repair becomes an Event on the pod."""
        self._require_synced()
        if not self._compared():
            raise AgentUnavailable("the sandboxes of this node have not been compared with the records yet")
        request = ClaimRequest()
        try:
            attachment, request = await self._admit(attachment)
            self._tell_misspelt(attachment.pod, request)
            return await self._ipam.claim(attachment, request)
        except (IPAMError, InvalidConfig) as error:
            if attachment.pod is not None and not isinstance(error, PodNotEligible):
                message = _message(error, request)
                self._events.event(reference_of(attachment.pod), "Warning", type(error).__name__, message)
            raise

    def _tell_misspelt(self, pod: PodRef | None, request: ClaimRequest) -> None:
        for key, meant in request.misspelt:
            if pod is not None:
                text = f"annotation {key} means nothing to Fast; did you mean {meant}?"
                self._events.event(reference_of(pod), "Warning", "UnknownAnnotation", text)

    async def release(self, container_id: str, ifname: str) -> tuple[IpEndpoint, ...]:
        """Release what exactly this attachment holds."""
        self._require_synced()
        return await self._ipam.release(container_id, ifname)

    async def unclaim(self, container_id: str, ifname: str) -> None:
        """Undo what the claim of the ADD in flight did."""
        await self._ipam.unclaim(container_id, ifname)

    def held(self, container_id: str, ifname: str) -> tuple[IpEndpoint, ...]:
        """Return what this attachment holds, as far as seen."""
        return self._ipam.records_of(container_id, ifname)

    async def _admit(self, attachment: Attachment) -> tuple[Attachment, ClaimRequest]:
        """Admit by what the watch shows; if that refuses, by a live read, since the watch may be behind."""
        pod = attachment.pod
        if pod is None:
            return await self._ipam.admit(attachment)
        if not pod.uid:  # without a UID from the runtime, the watch may show an earlier pod of the same name
            self._pods.doubt(pod)
        try:
            return await self._ipam.admit(attachment)
        except PodNotEligible:
            self._pods.doubt(pod)
            return await self._ipam.admit(attachment)

    def _require_synced(self) -> None:
        if not self._synced():
            raise AgentUnavailable("the addresses of the cluster have not been read from the API server yet")


def _message(error: IPAMError | InvalidConfig, request: ClaimRequest) -> str:
    """Return an Event's message. It is the same at each try: the counts of an exhausted pool are in kubelet's Event."""
    if isinstance(error, PoolExhausted):
        return f"no address is free in {' or '.join(f'pool {name}' for name in request.pools)}"
    return str(error)


def reference_of(pod: PodRef) -> ObjectReference:
    """Name a pod as Events do."""
    return ObjectReference("Pod", pod.name, pod.namespace, pod.uid, "v1")
