"""The table of policies: which of them select a pod. Rules are read only when a pod of this node is selected."""

from __future__ import annotations

from dataclasses import dataclass, field

from fast.policy.label_selectors import SelectorIndex
from fast.policy.matching import Namespaces, selects_namespace
from fast.policy.policy_objects import LocalPod, PolicyRef, Problem
from fast.policy.rule_groups import (
    Policy,
    PolicyRules,
    Subject,
    find_subject,
    is_audited,
    read_policy,
    ref_of,
    subject_problem,
)


@dataclass(slots=True, eq=False)
class StoredPolicy:
    """A policy as last seen. ``version`` is another number whenever its meaning may have changed."""

    policy: Policy
    subject: Subject | None
    audited: bool
    version: int
    _rules: PolicyRules | None = field(default=None, repr=False)

    @property
    def rules(self) -> PolicyRules:
        """The policy's rules, read when first asked for."""
        if self._rules is None:
            self._rules = read_policy(self.policy)
        return self._rules


def selects_pod(subject: Subject | None, pod: LocalPod, namespaces: Namespaces) -> bool:
    """Whether a policy with this subject applies to a pod."""
    if subject is None:
        return False
    if subject.namespace is not None:
        return subject.namespace == pod.namespace and subject.pods.matches(pod.labels)
    return subject.pods.matches(pod.labels) and selects_namespace(
        subject.namespaces, namespaces.find(pod.namespace)
    )


class PolicyIndex:
    """Every policy of the cluster, found by the labels of the pods they select."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._policies: dict[PolicyRef, StoredPolicy] = {}
        self._index: SelectorIndex[StoredPolicy] = SelectorIndex()
        self._versions = 0
        self._unreadable: dict[PolicyRef, Problem] = {}
        self._needs_namespace: set[PolicyRef] = set()

    def __len__(self) -> int:
        return len(self._policies)

    @property
    def problems(self) -> list[Problem]:
        """The policies whose subject cannot be read."""
        return list(self._unreadable.values())

    @property
    def asks_for_namespaces(self) -> bool:
        """Whether a policy selects pods by their namespace's labels."""
        return bool(self._needs_namespace)

    def set(self, policy: Policy) -> tuple[Subject | None, ...]:
        """Take a policy over; give the subjects whose pods it may mean something new to."""
        ref = ref_of(policy)
        before = self._policies.get(ref)
        audited = is_audited(policy)
        if before is not None:
            if before.policy.spec == policy.spec and before.audited == audited:
                before.policy = policy
                return ()
            self._leave(ref, before)
        self._versions += 1
        stored = StoredPolicy(policy, find_subject(policy), audited, self._versions)
        self._policies[ref] = stored
        self._enter(ref, stored)
        return (stored.subject,) if before is None else (before.subject, stored.subject)

    def remove(self, ref: PolicyRef) -> tuple[Subject | None, ...]:
        """Forget a policy; give the subject whose pods it meant something to."""
        stored = self._policies.pop(ref, None)
        if stored is None:
            return ()
        self._leave(ref, stored)
        return (stored.subject,)

    def _enter(self, ref: PolicyRef, stored: StoredPolicy) -> None:
        subject = stored.subject
        if subject is None:
            self._unreadable[ref] = subject_problem(stored.policy)
            return
        self._index.add(subject.namespace, subject.pods, stored)
        if subject.namespaces.requirements:
            self._needs_namespace.add(ref)

    def _leave(self, ref: PolicyRef, stored: StoredPolicy) -> None:
        self._unreadable.pop(ref, None)
        self._needs_namespace.discard(ref)
        if stored.subject is not None:
            self._index.remove(stored.subject.namespace, stored.subject.pods, stored)

    def selecting(self, pod: LocalPod) -> list[StoredPolicy]:
        """Give the policies that select a pod, in order of precedence."""
        found = {
            stored
            for scope in (pod.namespace, None)
            for stored in self._index.candidates(scope, pod.labels)
            if selects_pod(stored.subject, pod, self._namespaces)
        }
        return sorted(found, key=lambda stored: stored.rules.precedence)
