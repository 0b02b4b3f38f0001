"""A plan: the map writes that one change needs, in five steps, each of which may be interrupted (design §8).

1. ``PREPARE``: peers entries for classes that addresses will get, for the rule sets that are in use.
2. ``CLASSES``: addresses and blocks get their class.
3. ``RULE_SETS``: new rule sets, whole.
4. ``PODS``: one write for each address of a local pod: both directions and the epoch.
5. ``REMOVE``: what nothing has referred to for a second.

Between any two writes a rule set gives each packet the verdict it gave before or the one it gives after the plan. A
plan is to be carried out in order and to its end; if a write fails, read the maps back and start again
(:meth:`fast.policy.policy_tables.PolicyTables.adopt`).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import msgspec

from fast.policy.map_layout import Key, Map, PodPolicy, Value
from fast.policy.policy_objects import Problem


class Step(IntEnum):
    """When a write is due."""

    PREPARE = 1
    CLASSES = 2
    RULE_SETS = 3
    PODS = 4
    REMOVE = 5


class Put(msgspec.Struct, frozen=True):
    """Write an entry of a map that is policy's own; see ``layout.pack_key`` and ``pack_value``."""

    map: Map
    key: Key
    value: Value


class Delete(msgspec.Struct, frozen=True):
    """Delete an entry of a map that is policy's own; that it is not there is no error."""

    map: Map
    key: Key


class SetClass(msgspec.Struct, frozen=True):
    """Write ``peer_class`` in the ``fast_cluster_pods`` entries of these addresses (pods elsewhere, and nodes).

    An address whose entry does not exist yet gets it with this class when the agent writes the entry.
    """

    peer_class: int
    addresses: tuple[bytes, ...]


class SetPod(msgspec.Struct, frozen=True):
    """Write policy's part of the ``fast_local_pods`` entry of an address, by one update of the entry."""

    address: bytes
    policy: PodPolicy


Write = Put | Delete | SetClass | SetPod


class Plan(msgspec.Struct, frozen=True):
    """The writes of each step, and all problems there are now (not only new ones)."""

    steps: dict[Step, list[Write]]
    problems: tuple[Problem, ...]

    def __iter__(self) -> Iterator[Write]:
        for step in Step:
            yield from self.steps.get(step, ())

    def __bool__(self) -> bool:
        return any(self.steps.values())


class PlanBuilder:
    """Collects writes by step, in any order."""

    def __init__(self) -> None:
        self._steps: dict[Step, list[Write]] = {step: [] for step in Step}

    def add(self, step: Step, write: Write) -> None:
        """Put a write at the end of its step."""
        self._steps[step].append(write)

    def finish(self, problems: tuple[Problem, ...]) -> Plan:
        """Give the plan."""
        return Plan(self._steps, problems)
