"""Who owns an address, and when it becomes free: every decision of DESIGN section 4, as functions without I/O.

The life of an address::

    FREE ─create─▶ BOUND ─DEL by its agent, or GC─▶ FREE (cools for releaseDelaySeconds)
                   BOUND ─DEL of a sticky pod─▶ RETAINED (no containerID) ─same stickyKey─▶ BOUND

What each function gives is acted upon by a *single* write with the record's uid and resourceVersion as
preconditions, so a decision made on a state that has passed does nothing.

The races of DESIGN section 4: what would go wrong, and where it is decided. Each is named again at the line that
decides it, and planted as a bug in ``tests/unit/ipam/plants.py``, where the model test must find it.

Claiming:

- ``two-claimants``: two agents choose one address at the same time; create by name, in ``allocator``.
- ``lost-answer``: the API server took a write, its answer got lost; ``writes``, and the GC.
- ``own-write-echo``: the watch shows a time before a write of ours; ``view``.
- ``retried-add``: the runtime repeats an ADD, a second address is taken; :func:`on_add`.
- ``new-sandbox``: a pod's sandbox is made anew, the old record stays behind; :func:`on_add`.
- ``overtaken-add``: an ADD that took long takes the address from the pod's newer sandbox; :func:`on_add`.
- ``recreated-pod``: a new pod of the same name gets the record of the old one; :func:`admit`, :func:`on_add`.
- ``reused-container-id``: another node's sandbox of the same ID is mistaken for ours; :func:`on_add`, :func:`on_del`.
- ``other-interface``: a call for one interface gets or frees the address of another; :func:`on_add`, :func:`on_del`.
- ``terminating-pod``: an ADD comes after the pod was told to stop; :func:`admit`.
- ``moved-pod``: an ADD is served on a node the pod is not on; :func:`admit`.
- ``sticky-still-bound``: a StatefulSet's new pod takes the address of one that still runs; :func:`on_add`.
- ``sticky-from-afar``: a StatefulSet's pod moves before its new node saw the old record; ``claiming``.

Releasing:

- ``late-del``: the DEL of an old sandbox frees the new sandbox's address; :func:`on_del`.
- ``del-against-takeover``: a DEL was decided before, and is written after, a takeover; the preconditions.

Garbage collection by the agent:

- ``add-in-flight``: a record is freed whose sandbox is being made; :func:`on_agent_sweep`.
- ``reused-while-swept``: a repeated ADD finds a record good that the sweep is about to free; ``releasing``.
- ``half-seen-sandbox``: the sandbox is missed by one look at the kernel; :func:`on_agent_sweep`.
- ``changed-between-sightings``: two owners, each missed once, count as one missed twice; :class:`Sighting`.
- ``added-between-sightings``: a sandbox, missed once, counts as missing since before a repeated ADD; ``releasing``.
- ``rebooted-node``: records of sandboxes that a reboot took stay behind; :func:`on_agent_sweep`.
- ``foreign-node``: an agent frees what another node's agent answers for; :func:`on_agent_sweep`.

Garbage collection by the controller:

- ``partitioned-node``: a pod is gone, its sandbox still runs on a node out of reach; :func:`on_controller_sweep`.
- ``stale-pod-list``: a pod made after the list was read counts as gone; :func:`on_controller_sweep`.
- ``mass-disappearance``: an empty answer of the API server frees everybody's address; :func:`breaker`.
- ``retained-and-rebound``: a retained address is freed while its pod comes back; :func:`on_retained`.
- ``sticky-twice``: two addresses are kept for one ordinal; :func:`on_retained`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from fast.api.core import Node, Pod, StatefulSet
from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.ipam.rules.claim_request import Attachment, AttachmentKey, NodeIdentity, parse_sticky_key

#: Agent GC: a record without a sandbox must be seen so twice, this far apart.
SIGHTING_SECONDS = 30.0
#: Controller GC stops where one sweep would free more than this share of the records …
BREAKER_SHARE = 0.10
#: … and more than this many.
BREAKER_COUNT = 20


class Action(Enum):
    """What to do with a record."""

    KEEP = "keep"
    RELEASE = "release"
    RETAIN = "retain"
    SUSPECT = "suspect"
    SAME = "same"
    TAKE_OVER = "take over"
    REBIND = "rebind"
    WAIT = "wait"
    UNRELATED = "unrelated"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, by which rule (a race's name, or what the rule says), and the evidence in a sentence."""

    action: Action
    rule: str
    evidence: str

    @property
    def frees(self) -> bool:
        """Whether the record is released or retained by it."""
        return self.action in {Action.RELEASE, Action.RETAIN}


@dataclass(frozen=True, slots=True)
class Sighting:
    """A record seen without a sandbox: which version of it, and when first (monotonic seconds)."""

    uid: str
    resource_version: str
    seen_at: float

    def is_of(self, record: IpEndpoint) -> bool:
        """Whether the record is still that very version."""
        meta = record.metadata
        return (self.uid, self.resource_version) == (meta.uid, meta.resource_version)


def is_retained(record: IpEndpoint) -> bool:
    """Whether the record keeps an address for a sticky key and is on no sandbox."""
    return not record.spec.container_id


def holder_of(record: IpEndpoint) -> AttachmentKey:
    """The attachment that holds the record, on the record's node."""
    return (record.spec.container_id, record.spec.interface)


# ── what a record says after each step ──────────────────────────────────────────────────────────


def bound(
    pool: str, attachment: Attachment, node: NodeIdentity, sticky_key: str, pod: PodRef | None = None
) -> IpEndpointSpec:
    """The spec of a record that this node's sandbox holds."""
    return IpEndpointSpec(
        pool=pool,
        node=node.name,
        node_ip=node.ip,
        boot_id=node.boot_id,
        pod=pod or attachment.pod or PodRef(),
        container_id=attachment.container_id,
        interface=attachment.ifname,
        sticky_key=sticky_key,
    )


def retained(record: IpEndpoint) -> IpEndpoint:
    """The record kept for its sticky key: on no sandbox and no node; the pod stays, for people to see whose it was."""
    spec = msgspec.structs.replace(record.spec, container_id="", node="", node_ip="", boot_id="")
    return IpEndpoint(metadata=record.metadata, spec=spec)


# ── ADD ─────────────────────────────────────────────────────────────────────────────────────────


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
        return f"{name} is another one by now: UID {pod.sandbox_uid}, the runtime means {ref.uid}"
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
    sticky_key: str,
    *,
    overtaken: bool = False,
) -> Decision:
    """Decide what a record means to an ADD of the attachment: SAME, TAKE_OVER, REBIND, WAIT or UNRELATED.

    Args:
        record: One that the attachment, its pod or its sticky key may have to do with.
        attachment: Who claims.
        node: This node.
        sticky_key: Of the pod; empty where its address may change.
        overtaken: Whether the ADD of the record's sandbox began after this one.
    """
    spec = record.spec
    if spec.interface != attachment.ifname:  # race: other-interface
        return Decision(Action.UNRELATED, "other-interface", f"it is of interface {spec.interface}")
    if not is_retained(record) and spec.node == node.name:  # race: reused-container-id
        if spec.container_id == attachment.container_id and spec.boot_id == node.boot_id:
            # race: retried-add
            return Decision(Action.SAME, "retried-add", "this very sandbox holds it")
        uid = attachment.pod.uid if attachment.pod else ""
        if spec.container_id == attachment.container_id or (uid and spec.pod.uid == uid):
            # race: recreated-pod: the UID decides, never the name
            if overtaken:  # race: overtaken-add
                return Decision(
                    Action.WAIT, "overtaken-add", f"the pod's newer sandbox {spec.container_id} has it"
                )
            # race: new-sandbox
            return Decision(
                Action.TAKE_OVER, "new-sandbox", f"sandbox {spec.container_id} of the same pod held it"
            )
    if sticky_key and spec.sticky_key == sticky_key:
        if is_retained(record):
            return Decision(Action.REBIND, "sticky", f"it is retained for {sticky_key}")
        return Decision(  # race: sticky-still-bound
            Action.WAIT,
            "sticky-still-bound",
            f"pod {spec.pod.namespace}/{spec.pod.name} (UID {spec.pod.uid}) still holds it on node {spec.node}",
        )
    return Decision(Action.UNRELATED, "other-owner", "it belongs to another pod")


# ── DEL ─────────────────────────────────────────────────────────────────────────────────────────


def on_del(record: IpEndpoint, container_id: str, ifname: str, node_name: str) -> Decision:
    """Decide what a DEL of (container_id, ifname) does to a record: RELEASE, RETAIN or KEEP."""
    spec = record.spec
    if is_retained(record):
        return Decision(Action.KEEP, "late-del", "it is on no sandbox")
    if spec.container_id != container_id:  # race: late-del
        return Decision(Action.KEEP, "late-del", f"sandbox {spec.container_id} holds it, not {container_id}")
    if spec.interface != ifname:  # race: other-interface
        return Decision(Action.KEEP, "other-interface", f"it is of interface {spec.interface}, not {ifname}")
    if spec.node != node_name:  # race: reused-container-id
        return Decision(Action.KEEP, "foreign-node", f"node {spec.node} answers for it")
    return _free(record, "del", f"sandbox {container_id} is deleted")


def _free(record: IpEndpoint, rule: str, evidence: str) -> Decision:
    """Free a bound record: sticky ones are kept for their key, on no sandbox."""
    action = Action.RETAIN if record.spec.sticky_key else Action.RELEASE
    return Decision(action, rule, evidence)


# ── GC by the node's agent ──────────────────────────────────────────────────────────────────────


def on_agent_sweep(
    record: IpEndpoint,
    node: NodeIdentity,
    *,
    has_sandbox: bool,
    adding: bool,
    sighting: Sighting | None,
    now: float,
) -> Decision:
    """Decide about one record in an agent's sweep: KEEP, SUSPECT (look again later), RELEASE or RETAIN.

    Args:
        record: As the view shows it; read *before* the sandboxes were listed.
        node: This node.
        has_sandbox: Whether its sandbox or namespace exists; read *after* the record.
        adding: Whether an ADD of its attachment is in flight.
        sighting: When an earlier sweep suspected it.
        now: Monotonic seconds.
    """
    spec = record.spec
    if is_retained(record) or spec.node != node.name:  # race: foreign-node
        return Decision(
            Action.KEEP, "foreign-node", f"node {spec.node or '(none)'} answers for it, not {node.name}"
        )
    if adding:  # race: add-in-flight
        return Decision(Action.KEEP, "add-in-flight", "an ADD of its sandbox is in flight")
    if spec.boot_id != node.boot_id:  # race: rebooted-node
        return _free(
            record, "rebooted-node", f"its sandbox was of boot {spec.boot_id}, the node runs {node.boot_id}"
        )
    if has_sandbox:
        return Decision(Action.KEEP, "sandbox-exists", f"sandbox {spec.container_id} exists on this node")
    missing = f"node {node.name} has no sandbox {spec.container_id}"
    if sighting is None or not sighting.is_of(record):  # races: half-seen-sandbox, changed-between-sightings
        return Decision(Action.SUSPECT, "seen-once", f"{missing}; seen once")
    if now - sighting.seen_at < SIGHTING_SECONDS:  # race: half-seen-sandbox
        return Decision(Action.KEEP, "seen-once", f"{missing}; seen {now - sighting.seen_at:.0f} s ago")
    return _free(record, "no-sandbox", f"{missing}; seen twice, {now - sighting.seen_at:.0f} s apart")


# ── GC by the controller ────────────────────────────────────────────────────────────────────────


def on_controller_sweep(record: IpEndpoint, pod: Pod | None, node: Node | None) -> Decision:
    """Decide about one bound record in the controller's sweep: KEEP, RELEASE or RETAIN.

    Args:
        record: From the caller's watch or a list, in any case read *before* pod and node.
        pod: The pod of the record's namespace and name by a live GET, never by a cache (race: stale-pod-list).
        node: The record's Node by a live read, never by a cache.
    """
    spec = record.spec
    if pod is not None and pod.sandbox_uid == spec.pod.uid:
        return Decision(Action.KEEP, "pod-exists", f"pod {spec.pod.namespace}/{spec.pod.name} exists")
    whose = (
        f"pod {spec.pod.namespace}/{spec.pod.name} of UID {spec.pod.uid} is gone"
        if spec.pod.uid
        else "no pod named"
    )
    if node is None:
        return _free(record, "node-gone", f"{whose}, and there is no node {spec.node}")
    if node.out_of_service:
        return _free(record, "node-fenced", f"{whose}, and node {spec.node} is tainted out-of-service")
    # race: partitioned-node: the node may still run the sandbox, so only its own agent may free the address
    return Decision(Action.KEEP, "node-answers", f"{whose}, but node {spec.node} may still run its sandbox")


def on_retained(
    record: IpEndpoint,
    stateful_set: StatefulSet | None,
    *,
    bound_elsewhere: str = "",
    pool_deleted: bool = False,
) -> Decision:
    """Decide about one record in the controller's sweep that may be retained: KEEP or RELEASE.

    Args:
        record: By a live list that was read *before* the StatefulSets.
        stateful_set: The one whose UID the sticky key names; None where it is gone.
        bound_elsewhere: The address of the same family that the sticky key's pod holds meanwhile.
        pool_deleted: Whether the record's pool is being deleted, or is gone.
    """
    if not is_retained(record):  # race: retained-and-rebound (and the write's preconditions)
        return Decision(Action.KEEP, "sticky-still-bound", f"sandbox {record.spec.container_id} holds it")
    if bound_elsewhere:  # race: sticky-twice
        return Decision(Action.RELEASE, "sticky-twice", f"its pod holds {bound_elsewhere} by now")
    if pool_deleted:
        return Decision(
            Action.RELEASE, "pool-deleted", f"pool {record.spec.pool} is deleted and no sandbox holds it"
        )
    key = parse_sticky_key(record.spec.sticky_key)
    if key is None or stateful_set is None:
        return Decision(
            Action.RELEASE, "stateful-set-gone", f"the StatefulSet of {record.spec.sticky_key!r} is gone"
        )
    ordinal, name = key[1], f"StatefulSet {stateful_set.metadata.key}"
    start = stateful_set.spec.ordinals.get("start", 0)
    if not start <= ordinal < start + stateful_set.spec.replicas:
        return Decision(
            Action.RELEASE,
            "scaled-down",
            f"{name} has ordinals {start} to {start + stateful_set.spec.replicas - 1}",
        )
    return Decision(Action.KEEP, "sticky", f"{name} will start ordinal {ordinal} again")


def breaker(to_free: int, total: int, limit: int = BREAKER_COUNT) -> str:
    """Decide whether a sweep may free that many records: empty if so, else why not (race: mass-disappearance)."""
    if to_free > limit and to_free > BREAKER_SHARE * total:
        return (
            f"the sweep would free {to_free} of {total} addresses at once, more than {BREAKER_SHARE:.0%} and more than "
            f"{limit}: nothing was freed"
        )
    return ""
