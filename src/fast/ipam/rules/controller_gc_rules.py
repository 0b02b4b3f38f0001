"""What the controller's garbage collection frees: records that no agent answers for."""

from __future__ import annotations

from fast.api.core import Node, Pod, StatefulSet
from fast.api.fastnode import SILENT_SECONDS
from fast.api.ipendpoint import IpEndpoint
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.rules.record_states import is_retained, to_free
from fast.ipam.rules.sticky_keys import parse_sticky_key


def on_controller_sweep(
    record: IpEndpoint, pod: Pod | None, node: Node | None, silent_seconds: float
) -> Decision:
    """Decide about one bound record in the controller's sweep: KEEP, RELEASE or RETAIN.

    Args:
        record: From the caller's watch or a list; read *before* pod and node.
        pod: The pod of the record's namespace and name by a live GET, never by a cache (race: stale-pod-list).
        node: The record's Node by a live read, never by a cache.
        silent_seconds: How long the heartbeat Lease of the record's node has not been renewed.
    """
    spec = record.spec
    if pod is not None and pod.sandbox_uid == spec.pod.uid:
        return Decision(Action.KEEP, "pod-exists", f"pod {spec.pod.namespace}/{spec.pod.name} exists")
    whose = (
        f"pod {spec.pod.namespace}/{spec.pod.name} of UID {spec.pod.uid} is gone"
        if spec.pod.uid
        else "no pod named"
    )
    if node is None and silent_seconds < SILENT_SECONDS:  # race: node-object-deleted
        return Decision(
            Action.KEEP,
            "node-beats",
            f"{whose}, and there is no Node {spec.node}, but its agent renewed its Lease {silent_seconds:.0f} s ago",
        )
    if node is None:
        return to_free(record, "node-gone", f"{whose}, there is no Node {spec.node}, and its agent is silent")
    if node.out_of_service:
        return to_free(record, "node-fenced", f"{whose}, and node {spec.node} is tainted out-of-service")
    # race: partitioned-node: the node may still run the sandbox, so only its own agent may free the address
    return Decision(Action.KEEP, "node-answers", f"{whose}, but node {spec.node} may still run its sandbox")


def on_retained(
    record: IpEndpoint,
    stateful_set: StatefulSet | None,
    *,
    bound_elsewhere: str = "",
    pool_deleted: bool = False,
    pool_gone: bool = False,
) -> Decision:
    """Decide about one record in the controller's sweep that may be retained: KEEP or RELEASE.

    Args:
        record: By a live list that was read *before* the StatefulSets.
        stateful_set: The one that the sticky key names; None if it is gone.
        bound_elsewhere: The address of the same family that the sticky key's pod holds meanwhile.
        pool_deleted: Whether the record's pool is being deleted.
        pool_gone: Whether there is no such pool.
    """
    if not is_retained(record):  # race: retained-and-rebound (and the write's preconditions)
        return Decision(Action.KEEP, "sticky-still-bound", f"sandbox {record.spec.container_id} holds it")
    if bound_elsewhere:  # race: sticky-twice
        return Decision(Action.RELEASE, "sticky-twice", f"its pod now holds {bound_elsewhere}")
    if pool_deleted:
        return Decision(
            Action.RELEASE, "pool-deleted", f"pool {record.spec.pool} is deleted and no sandbox holds it"
        )
    if pool_gone:
        return Decision(
            Action.RELEASE, "pool-gone", f"there is no pool {record.spec.pool} and no sandbox holds it"
        )
    key = parse_sticky_key(record.spec.sticky_key)
    if key is not None and key.ordinal is None:
        return Decision(Action.KEEP, "sticky", f"kept for the next pod {key.namespace}/{key.name}")
    if key is None or stateful_set is None:
        return Decision(
            Action.RELEASE, "stateful-set-gone", f"the StatefulSet of {record.spec.sticky_key!r} is gone"
        )
    ordinal, name = key.ordinal or 0, f"StatefulSet {stateful_set.metadata.key}"
    start = stateful_set.spec.ordinals.get("start", 0)
    if not start <= ordinal < start + stateful_set.spec.replicas:
        return Decision(
            Action.RELEASE,
            "scaled-down",
            f"{name} has ordinals {start} to {start + stateful_set.spec.replicas - 1}",
        )
    return Decision(Action.KEEP, "sticky", f"{name} will start ordinal {ordinal} again")
