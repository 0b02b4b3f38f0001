"""What to do about a live sandbox that has an address which is not recorded as its own.

Records get lost: etcd is restored from a backup, somebody deletes an IpEndpoint, the CRDs are installed again.
"""

from __future__ import annotations

from collections.abc import Collection

from fast.api.ipendpoint import IpEndpoint
from fast.ipam.rules.claim_request import Attachment, AttachmentKey, NodeIdentity
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.rules.record_states import holder_of, is_retained


def on_live_sandbox(
    record: IpEndpoint | None,
    attachment: Attachment,
    node: NodeIdentity,
    holders: Collection[AttachmentKey],
) -> Decision:
    """Decide about an address of a live sandbox of this node: SAME, RESTORE or CONTESTED.

    Args:
        record: The address's record; None if there is none.
        attachment: The sandbox, with its pod as far as known.
        node: This node.
        holders: Attachments of this node that exist in the kernel or of which an ADD is in flight.
    """
    if record is None:  # race: lost-record
        return Decision(Action.RESTORE, "lost-record", "its record is gone while its sandbox lives")
    spec = record.spec
    if is_retained(record):
        if attachment.pod is None or spec.pod.namespace in ("", attachment.pod.namespace):
            return Decision(Action.RESTORE, "lost-record", "an older version of its record came back")
        return Decision(Action.CONTESTED, "contested", "it is retained for another workload")
    if spec.node == node.name:
        if holder_of(record) == attachment.key:
            return Decision(Action.SAME, "retried-add", "this sandbox holds it")
        if holder_of(record) not in holders:
            return Decision(Action.RESTORE, "lost-record", f"sandbox {spec.container_id} does not exist")
    return Decision(Action.CONTESTED, "contested", f"it is recorded for a sandbox on node {spec.node}")
