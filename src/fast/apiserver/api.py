"""What the server's own parts (workload controllers, garbage collection, exec, access) may use: types only, no logic.

``Api`` is the verbs in process, on plain dict objects, with the rules, errors and effects they have over HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fast.apiserver.kinds import GVR
from fast.apiserver.status import ApiError

__all__ = ["Access", "Api", "ApiError", "Change", "Object", "Options", "Subscription", "User"]

Object = dict[str, Any]
#: (ADDED | MODIFIED | DELETED, resource, object). The object is the receiver's own.
Change = tuple[str, GVR, Object]


@dataclass
class Options:
    """How a write is to be done.

    Attributes:
        dry_run: Check and answer, but store nothing.
        field_validation: ``Ignore``, ``Warn`` or ``Strict``, for fields the schema does not know.
        manager: Who writes; owns fields in server-side apply.
        force: Server-side apply takes over fields that other managers own.
        warnings: What the answer should warn about; appended to.
    """

    dry_run: bool = False
    field_validation: str = "Warn"
    manager: str = "unknown"
    force: bool = False
    warnings: list[str] = field(default_factory=list)


class Subscription(Protocol):
    """What happens to some resources: every object that exists as ADDED, then each change in order.

    Iterating raises ApiError 410 once the receiver is so late that changes are no longer kept: subscribe anew.
    """

    def __aiter__(self) -> AsyncIterator[Change]: ...

    def close(self) -> None:
        """End the iteration."""
        ...


class Api(Protocol):
    """The verbs. Every one raises ApiError where HTTP would answer with a Status; writes return once durable."""

    async def get(self, gvr: GVR, name: str, namespace: str | None = None) -> Object:
        """Read one object."""
        ...

    async def list(
        self, gvr: GVR, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> list[Object]:
        """Read the objects of a namespace (None: of all)."""
        ...

    async def create(
        self, gvr: GVR, obj: Object, namespace: str | None = None, *, options: Options | None = None
    ) -> Object:
        """Store a new object; its name may come from ``generateName``."""
        ...

    async def update(
        self, gvr: GVR, obj: Object, *, subresource: str = "", options: Options | None = None
    ) -> Object:
        """Replace an object; 409 where its resourceVersion is stale. Namespace and name from its metadata."""
        ...

    async def patch(
        self,
        gvr: GVR,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        kind: str = "merge",
        subresource: str = "",
        options: Options | None = None,
    ) -> Object:
        """Change an object. ``kind``: ``merge``, ``json``, ``strategic`` or ``apply``."""
        ...

    async def delete(
        self,
        gvr: GVR,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        propagation: str | None = None,
        preconditions: Mapping[str, str] | None = None,
        options: Options | None = None,
    ) -> Object:
        """Delete an object, or mark it where finalizers or grace hold it.

        Args:
            gvr: The resource.
            name: The object's name.
            namespace: Its namespace; None for cluster-scoped resources.
            grace_period_seconds: Pods only; None: the pod's own.
            propagation: ``Background`` (default), ``Foreground`` or ``Orphan``.
            preconditions: ``uid`` and/or ``resourceVersion`` it must have.
            options: Only ``dry_run`` counts.

        Returns:
            The object where it still exists or the kind answers so (pods), else a Status of success.
        """
        ...

    def subscribe(self, *gvrs: GVR) -> Subscription:
        """Follow resources: a snapshot as ADDED, then every change."""
        ...


@dataclass(frozen=True)
class User:
    """Who asks."""

    name: str
    groups: tuple[str, ...] = ()


class Access(Protocol):
    """Who may come in, and what they may do."""

    def authenticate(
        self, headers: Mapping[str, str], peer_certificate: Mapping[str, Any] | None
    ) -> User | None:
        """Tell who asks, by bearer token or client certificate (as ``ssl`` decodes it); None: nobody known."""
        ...

    def authorize(
        self, user: User, verb: str, gvr: GVR, namespace: str | None, name: str, subresource: str
    ) -> bool:
        """Tell whether the user may do it."""
        ...

    def authorize_path(self, user: User, verb: str, path: str) -> bool:
        """Tell whether the user may ask for a path that is no resource, as ``/metrics``."""
        ...
