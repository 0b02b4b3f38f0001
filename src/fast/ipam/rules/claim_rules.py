"""What a CNI ADD gets: whether a sandbox may be made for the pod, and what a record means to it."""

from __future__ import annotations

from collections.abc import Collection

from fast.api.core import Pod
from fast.api.ipendpoint import IpEndpoint, PodRef
from fast.ipam.rules.claim_request import Attachment, NodeIdentity
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.rules.record_states import is_retained


def admit(pod: Pod | None, ref: PodRef, node_name: str) -> str:
    """Decide whether a sandbox may be made for the pod: empty if so, else why not.

    Args:
        pod: The pod of that name by a live read or a fresh cache.
        ref: What the runtime says; its UID may be empty (``K8S_POD_UID`` is not given by every runtime).
        node_name: This node.
    """
    name = f"pod {ref.namespace}/{ref.name}"
    if pod is None:
        return f"{name} does not exist"
    if ref.uid and pod.sandbox_uid != ref.uid:  # race: recreated-pod
        return f"{name} was recreated: its UID is {pod.sandbox_uid}, the runtime asked for {ref.uid}"
    if pod.spec.node_name != node_name:  # race: moved-pod
        return f"{name} is on node {pod.spec.node_name or '(none)'}, not on {node_name}"
    if pod.terminating:  # race: terminating-pod
        return f"{name} is terminating"
    if pod.finished:
        return f"{name} has finished ({pod.status.phase})"
    return ""


def on_add(
    record: IpEndpoint,
    attachment: Attachment,
    node: NodeIdentity,
    sticky_keys: Collection[str],
    *,
    overtaken: bool = False,
) -> Decision:
    """Decide what a record means to an ADD of the attachment: SAME, TAKE_OVER, REBIND, WAIT or UNRELATED.

    Args:
        record: One that may concern the attachment, its pod or its sticky key.
        attachment: Who claims.
        node: This node.
        sticky_keys: Of the pod, present and former; empty if its address may change.
        overtaken: Whether the ADD of the record's sandbox began after this one.
    """
    spec = record.spec
    if spec.interface != attachment.ifname:  # race: other-interface
        return Decision(Action.UNRELATED, "other-interface", f"it belongs to interface {spec.interface}")
    if not is_retained(record) and spec.node == node.name:  # race: reused-container-id
        if spec.container_id == attachment.container_id and spec.boot_id == node.boot_id:
            # race: retried-add
            return Decision(Action.SAME, "retried-add", "this sandbox holds it")
        uid = attachment.pod.uid if attachment.pod else ""
        if spec.container_id == attachment.container_id or (uid and spec.pod.uid == uid):
            # race: recreated-pod: the UID decides, never the name
            if overtaken:  # race: overtaken-add
                return Decision(
                    Action.WAIT, "overtaken-add", f"the pod's newer sandbox {spec.container_id} holds it"
                )
            # race: new-sandbox
            return Decision(
                Action.TAKE_OVER, "new-sandbox", f"sandbox {spec.container_id} of the same pod held it"
            )
    if spec.sticky_key and spec.sticky_key in sticky_keys and _same_namespace(record, attachment):
        if is_retained(record):
            return Decision(Action.REBIND, "sticky", f"it is retained for {spec.sticky_key}")
        return Decision(  # race: sticky-still-bound
            Action.WAIT,
            "sticky-still-bound",
            f"the pod before, {spec.pod.namespace}/{spec.pod.name}, still holds it on node {spec.node}",
        )
    return Decision(Action.UNRELATED, "other-owner", "it belongs to another pod")


def _same_namespace(record: IpEndpoint, attachment: Attachment) -> bool:
    """Whether the record's pod is of the attachment's namespace: any pod may name any owner's UID."""
    pod = attachment.pod
    return pod is None or not record.spec.pod.namespace or record.spec.pod.namespace == pod.namespace


def held_by(holder: IpEndpoint | None, attachment: Attachment) -> str:
    """Say who holds an address that the attachment asked for; of other namespaces, only that they do."""
    if holder is None:
        return "was taken, and is free again"
    spec = holder.spec
    of_namespace = attachment.pod is not None and spec.pod.namespace == attachment.pod.namespace
    if is_retained(holder):
        return f"is retained for pod {spec.pod.name}" if of_namespace else "is retained for another workload"
    return (
        f"belongs to pod {spec.pod.name} on node {spec.node}"
        if of_namespace
        else "belongs to another workload"
    )
