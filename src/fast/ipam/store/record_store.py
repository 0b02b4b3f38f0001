"""What address management needs of the place where records live: writes with preconditions, and a view to read from.

No decisions. :class:`fast.ipam.store.kube_store.KubeStore` is the real one; ``tests/fakes/store.py`` the fake, and both
pass one contract test.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from fast.api.core import Namespace, Pod
from fast.api.ipendpoint import IpEndpoint
from fast.api.ips import Ips
from fast.net import IPAddress


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """A record appeared (``old`` None), changed, or went away (``new`` None) in the view."""

    old: IpEndpoint | None
    new: IpEndpoint | None


@dataclass(frozen=True, slots=True)
class PoolChange:
    """A pool appeared (``old`` None), changed, or went away (``new`` None) in the view."""

    old: Ips | None
    new: Ips | None


class ReadStore(Protocol):
    """A synchronous view of records and pools."""

    @property
    def endpoints(self) -> Mapping[str, IpEndpoint]:
        """Records by name, as far as seen."""

    @property
    def pools(self) -> Mapping[str, Ips]:
        """Pools by name, as far as seen."""

    def subscribe(
        self, endpoint: Callable[[EndpointChange], None], pool: Callable[[PoolChange], None]
    ) -> None:
        """Call the functions, synchronously, for every change of the view from now on."""


class Store(ReadStore, Protocol):
    """IpEndpoint records and Ips pools: a synchronous view, and asynchronous writes that the view shows at once.

    The view may lag behind what *others* wrote, never behind what this process wrote (a claim just made must be seen
    by the next one). Every write but ``create`` carries the record's uid and resourceVersion as preconditions.
    Any call may raise another :class:`fast.errors.KubeError`; after ``Unavailable`` it is not known whether a write
    took effect.
    """

    async def create(self, endpoint: IpEndpoint) -> IpEndpoint:
        """Write a new record; Conflict (``already_exists``) if there is one of that name."""

    async def replace(self, endpoint: IpEndpoint) -> IpEndpoint:
        """Compare and swap: Conflict if the record changed since it was read, NotFound if it is gone."""

    async def delete(self, endpoint: IpEndpoint) -> None:
        """Delete that version: Conflict if the record changed since, NotFound if it is gone."""

    async def refresh(self, name: str) -> IpEndpoint | None:
        """Read a record past the view, and show what was read in the view; None if there is none."""

    async def names_in_pool(self, pool: str) -> Collection[str]:
        """Read the names of the pool's records past the view, which stays as it is."""

    async def refresh_sticky(self, *keys: str) -> None:
        """Read the records of sticky keys past the view, and show what was read in the view."""


class PodView(Protocol):
    """Pods and namespaces, by a live read or a cache known to be fresh."""

    async def pod(self, namespace: str, name: str) -> Pod | None:
        """The pod of that name, or None."""

    async def namespace(self, name: str) -> Namespace | None:
        """The namespace, or None."""

    def pod_with(self, address: IPAddress) -> Pod | None:
        """The pod of this node that reports the address in its status, or None, as far as seen."""
