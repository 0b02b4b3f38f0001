"""The states of a record, and the spec it has in each. Retain or delete is decided here, once."""

from __future__ import annotations

import msgspec

from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec, PodRef
from fast.ipam.rules.claim_request import Attachment, AttachmentKey, NodeIdentity
from fast.ipam.rules.decision import Action, Decision


def is_retained(record: IpEndpoint) -> bool:
    """Whether the record keeps an address for a sticky key and no attachment holds it."""
    return not record.spec.container_id


def holder_of(record: IpEndpoint) -> AttachmentKey:
    """Give the attachment that holds the record, on the record's node."""
    return (record.spec.container_id, record.spec.interface)


def bound(
    pool: str, attachment: Attachment, node: NodeIdentity, sticky_key: str, pod: PodRef | None = None
) -> IpEndpointSpec:
    """Give the spec of a record that an attachment of this node holds."""
    return IpEndpointSpec(
        pool=pool,
        node=node.name,
        boot_id=node.boot_id,
        pod=pod or attachment.pod or PodRef(),
        container_id=attachment.container_id,
        interface=attachment.ifname,
        sticky_key=sticky_key,
        pod_labels=dict(attachment.pod_labels),
        named_ports=attachment.named_ports,
    )


def freed(record: IpEndpoint, now: str = "") -> IpEndpoint | None:
    """Give what is left of a record that is freed: None (delete it), or the record retained for its sticky key.

    ``now`` is the time to write down, RFC 3339.

    A retained record is on no sandbox and no node. It still names the pod, so that people see whose it was.
    """
    if is_retained(record) or not record.spec.sticky_key:
        return None
    spec = msgspec.structs.replace(
        record.spec, container_id="", node="", boot_id="", retained_at=now, pod_labels={}, named_ports=()
    )
    return IpEndpoint(metadata=record.metadata, spec=spec)


def to_free(record: IpEndpoint, rule: str, evidence: str) -> Decision:
    """Decide that a record is freed: RETAIN or RELEASE, as :func:`freed` says."""
    return Decision(Action.RELEASE if freed(record) is None else Action.RETAIN, rule, evidence)
