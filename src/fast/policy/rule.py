"""One rule as it is meant, of either API, and the list on which its readers put what they cannot read."""

from __future__ import annotations

import msgspec

from fast.policy.peers import BasePeer
from fast.policy.policy_objects import Action, Direction, PolicyRef, Problem, ProblemKind, Tier
from fast.policy.ports import PortRange


class NamedPortMatch(msgspec.Struct, frozen=True, order=True):
    """A port by its name on the destination pod; ``protocol`` None: whatever that port's protocol is."""

    name: str
    protocol: int | None

    def matches(self, name: str, protocol: int) -> bool:
        """Whether a container's port of this name and protocol is meant."""
        return name == self.name and self.protocol in (None, protocol)


PortMatch = PortRange | NamedPortMatch


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule matches: any of ``peers`` at any of ``ports`` (None: everything, whatever the protocol)."""

    policy: PolicyRef
    direction: Direction
    index: int
    name: str
    tier: Tier
    action: Action
    peers: tuple[BasePeer, ...]
    ports: tuple[PortMatch, ...] | None

    @property
    def path(self) -> str:
        """The rule's place in its policy, as ``ingress[0]``."""
        return f"{self.direction.value}[{self.index}]"


class Problems:
    """What is wrong with one policy, in the order it is found."""

    def __init__(self, policy: PolicyRef) -> None:
        self.policy = policy
        self.found: list[Problem] = []

    def add(self, path: str, message: str, kind: ProblemKind = ProblemKind.INVALID) -> None:
        """Note a problem of a field; ``message`` says what it means for the policy."""
        self.found.append(Problem(kind, self.policy, path, message))
