"""ObjectMeta, Condition and selectors: what every Kubernetes object shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec


class Identified(Protocol):
    """What every form of metadata has: which object, and which version of it."""

    @property
    def name(self) -> str:
        """``metadata.name``."""

    @property
    def namespace(self) -> str:
        """``metadata.namespace``; empty for cluster-scoped objects."""

    @property
    def uid(self) -> str:
        """``metadata.uid``."""

    @property
    def resource_version(self) -> str:
        """``metadata.resourceVersion``."""

    @property
    def key(self) -> str:
        """``namespace/name``, or ``name`` for cluster-scoped objects."""


class HasMetadata(Protocol):
    """An object of the Kubernetes API, as client and informer need it."""

    @property
    def metadata(self) -> Identified:
        """Which object this is."""


class OwnerReference(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, gc=False):
    """``metadata.ownerReferences[]``."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, gc=False):
    """``metadata``; times stay RFC 3339 text. ``managedFields`` is left out, as it is half of an object's bytes."""

    name: str = ""
    namespace: str = ""
    generate_name: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    owner_references: list[OwnerReference] = []

    @property
    def key(self) -> str:
        """``namespace/name``, or ``name`` for cluster-scoped objects: the informer's cache key."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def version(self) -> int:
        """The resourceVersion as a number: of two versions of an object, the newer one has the greater number.

        Kubernetes guarantees this since 1.35; earlier versions do the same. Text that is not a number counts as newest.
        """
        return int(self.resource_version) if self.resource_version.isdecimal() else 1 << 63

    def is_same_version(self, other: ObjectMeta) -> bool:
        """Whether both are of one version of one object."""
        return (self.uid, self.resource_version) == (other.uid, other.resource_version)


class Condition(msgspec.Struct, rename="camel", omit_defaults=False, kw_only=True):
    """``metav1.Condition``."""

    type: str
    status: str
    reason: str
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class LabelSelectorRequirement(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """One of ``matchExpressions``: ``operator`` is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels meets the requirement; NotIn holds if the key is absent."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case _:
                return value is None


class LabelSelector(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """``metav1.LabelSelector``; an empty one matches everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )
