"""What a CNI DEL frees."""

from __future__ import annotations

from fast.api.ipendpoint import IpEndpoint
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.rules.record_states import is_retained, to_free


def on_del(record: IpEndpoint, container_id: str, ifname: str, node_name: str) -> Decision:
    """Decide what a DEL of (container_id, ifname) on a node does to a record: RELEASE, RETAIN or KEEP."""
    spec = record.spec
    if is_retained(record):
        return Decision(Action.KEEP, "late-del", "no sandbox holds it")
    if spec.container_id != container_id:  # race: late-del
        return Decision(Action.KEEP, "late-del", f"sandbox {spec.container_id} holds it, not {container_id}")
    if spec.interface != ifname:  # race: other-interface
        return Decision(
            Action.KEEP, "other-interface", f"it belongs to interface {spec.interface}, not {ifname}"
        )
    if spec.node != node_name:  # race: reused-container-id
        return Decision(Action.KEEP, "foreign-node", f"the agent of node {spec.node} answers for it")
    return to_free(record, "del", f"sandbox {container_id} was deleted")
