"""What an agent's garbage collection frees: records of its own node whose sandbox is gone."""

from __future__ import annotations

from dataclasses import dataclass

from fast.api.ipendpoint import IpEndpoint
from fast.api.meta import ObjectMeta
from fast.ipam.rules.claim_request import NodeIdentity
from fast.ipam.rules.decision import Action, Decision
from fast.ipam.rules.record_states import is_retained, to_free

#: A record must be seen without its sandbox twice, this far apart.
SIGHTING_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A version of a record that was seen without its sandbox, and when first (monotonic seconds)."""

    version: ObjectMeta
    seen_at: float

    def is_of(self, record: IpEndpoint) -> bool:
        """Whether the record is still that version."""
        return self.version.is_same_version(record.metadata)


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
            Action.KEEP,
            "foreign-node",
            f"the agent of node {spec.node or '(none)'} answers for it, not that of {node.name}",
        )
    if adding:  # race: add-in-flight
        return Decision(Action.KEEP, "add-in-flight", "an ADD of its sandbox is in flight")
    if spec.boot_id != node.boot_id:  # race: rebooted-node
        return to_free(
            record, "rebooted-node", f"its sandbox was of boot {spec.boot_id}, the node runs {node.boot_id}"
        )
    if has_sandbox:
        return Decision(Action.KEEP, "sandbox-exists", f"sandbox {spec.container_id} exists on this node")
    missing = f"node {node.name} has no sandbox {spec.container_id}"
    if sighting is None or not sighting.is_of(record):  # races: half-seen-sandbox, changed-between-sightings
        return Decision(Action.SUSPECT, "seen-once", f"{missing}; seen once")
    if now - sighting.seen_at < SIGHTING_SECONDS:  # race: half-seen-sandbox
        return Decision(Action.KEEP, "seen-once", f"{missing}; seen {now - sighting.seen_at:.0f} s ago")
    return to_free(record, "no-sandbox", f"{missing}; seen twice, {now - sighting.seen_at:.0f} s apart")
