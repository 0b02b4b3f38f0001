"""The verbs of the Kubernetes API on typed resources. No caching (``informer``), no HTTP details (``transport``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
import structlog

from fast.api.meta import HasMetadata, ObjectMeta
from fast.api.resources import Resource
from fast.errors import Expired, Invalid
from fast.kube.api_config import ClusterConfig
from fast.kube.transport import Request, Transport

log = structlog.get_logger()

T = TypeVar("T", bound=HasMetadata)

PatchKind = Literal["merge", "strategic", "json"]

_PATCH_TYPES: dict[PatchKind, str] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}
_LIST_PAGE_SECONDS = 60.0
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Undecodable:
    """An object that exists but does not fit its type: what could be read of it, and the error."""

    metadata: ObjectMeta
    error: str


@dataclass(slots=True)
class Listed(Generic[T]):
    """A complete list, as of one resourceVersion.

    Attributes:
        items: The objects.
        resource_version: The list's version; a watch from it misses nothing.
        undecodable: By key, the objects that do not fit the type.
    """

    items: list[T]
    resource_version: str
    undecodable: dict[str, Undecodable] = field(default_factory=dict)


@dataclass(slots=True)
class Page:
    """One page of a list, its objects still JSON. ``first``: discard earlier pages, the list was restarted."""

    items: list[msgspec.Raw]
    resource_version: str
    first: bool


class _ListMeta(msgspec.Struct, rename={"resource_version": "resourceVersion", "continue_": "continue"}):
    resource_version: str = ""
    continue_: str = ""


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Metadata(msgspec.Struct):
    metadata: ObjectMeta


_decode_list = msgspec.json.Decoder(_List).decode
_decode_metadata = msgspec.json.Decoder(_Metadata).decode


@cache
def decoder_of(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Give the decoder of a type, cached."""
    return msgspec.json.Decoder(kind)


def metadata_of(raw: msgspec.Raw | bytes) -> ObjectMeta:
    """Read only an object's metadata; MsgspecError if that does not fit either."""
    return _decode_metadata(raw).metadata


class KubeClient:
    """Speaks to one API server. Use it as an async context manager, or call :meth:`close`.

    Objects are structs of :mod:`fast.api`; errors are subclasses of :class:`fast.errors.KubeError`.
    """

    def __init__(
        self,
        config: ClusterConfig,
        *,
        user_agent: str = "fast",
        timeout_seconds: float = 15.0,
        retry_seconds: float = 10.0,
    ) -> None:
        """Make a client. It connects at the first request.

        Args:
            config: The server and the credentials.
            user_agent: The program's name, for the server's logs.
            timeout_seconds: The limit of one request.
            retry_seconds: The longest total wait of one call if the server answers 429.
        """
        self.config = config
        self._transport = Transport(
            config, user_agent=user_agent, timeout_seconds=timeout_seconds, retry_seconds=retry_seconds
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def clock_ahead_seconds(self) -> float | None:
        """Return how far this machine's clock is ahead of the server's, within a second; None if it is not known."""
        return self._transport.clock_ahead_seconds()

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        await self._transport.close()

    async def get(self, resource: Resource[T], name: str, namespace: str | None = None) -> T:
        """Read one object from the server.

        Raises:
            NotFound: There is none of that name.
            KubeError: The server refused or cannot be reached.
        """
        request = Request(_words("get", resource, namespace, name), "GET", _path(resource, namespace, name))
        return await self._send(resource, request)

    async def create(self, resource: Resource[T], obj: T) -> T:
        """Create the object, in the namespace of its metadata.

        Raises:
            Conflict: The name is taken (``already_exists``).
            Unavailable: No answer came; whether the object was created is not known.
            KubeError: The server refused.
        """
        what = _words("create", resource, obj.metadata.namespace, obj.metadata.name)
        path = _path(resource, obj.metadata.namespace)
        return await self._send(resource, Request(what, "POST", path, body=_encode(obj)))

    async def update(self, resource: Resource[T], obj: T) -> T:
        """Replace the object except its status; ``metadata.resourceVersion`` makes it a compare-and-swap.

        Raises:
            Conflict: The object changed since that resourceVersion, or its UID differs.
            NotFound: It is gone.
            KubeError: The server refused or cannot be reached.
            TypeError: The type is a view, so the update would drop the fields it lacks: patch instead.
        """
        if "kind" not in getattr(obj, "__struct_fields__", ()):
            raise TypeError(
                f"{type(obj).__name__} is a view: an update would drop the fields it lacks; patch instead"
            )
        what = _words("update", resource, obj.metadata.namespace, obj.metadata.name)
        path = _path(resource, obj.metadata.namespace, obj.metadata.name)
        return await self._send(resource, Request(what, "PUT", path, body=_encode(obj)))

    async def patch(
        self,
        resource: Resource[T],
        name: str,
        patch: dict[str, Any] | list[dict[str, Any]],
        namespace: str | None = None,
        *,
        subresource: str = "",
        kind: PatchKind = "merge",
    ) -> T:
        """Change an object in place.

        Args:
            resource: The resource.
            name: The object's name.
            patch: The patch; a list of operations for kind ``json``. A ``metadata.resourceVersion`` or ``uid`` in
                a merge patch is a precondition.
            namespace: The object's namespace.
            subresource: Such as ``status``.
            kind: Custom resources do not support ``strategic``.

        Raises:
            Conflict: A precondition failed.
            NotFound: There is no such object.
            KubeError: The server refused or cannot be reached.
        """
        what, path = _words("patch", resource, namespace, name), _path(resource, namespace, name, subresource)
        request = Request(what, "PATCH", path, body=_encode(patch), content_type=_PATCH_TYPES[kind])
        return await self._send(resource, request)

    async def delete(
        self,
        resource: Resource[T],
        name: str,
        namespace: str | None = None,
        *,
        uid: str = "",
        resource_version: str = "",
        grace_period_seconds: int | None = None,
    ) -> None:
        """Delete one object, if the preconditions hold.

        Args:
            resource: The resource.
            name: The object's name.
            namespace: Its namespace.
            uid: Precondition; empty for none.
            resource_version: Precondition; empty for none.
            grace_period_seconds: For pods; None uses the object's own.

        Raises:
            Conflict: A precondition failed.
            NotFound: It no longer exists.
            KubeError: The server refused or cannot be reached.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        preconditions = {
            key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value
        }
        if preconditions:
            options["preconditions"] = preconditions
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        what, path = _words("delete", resource, namespace, name), _path(resource, namespace, name)
        await self._transport.send(Request(what, "DELETE", path, body=_encode(options)))

    async def list(
        self,
        resource: Resource[T],
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
    ) -> Listed[T]:
        """Read every object, as of one resourceVersion, in pages of ``limit``.

        Objects that do not fit the type are reported in ``undecodable``: one bad object must not hide the others.

        Raises:
            KubeError: The server refused or cannot be reached.
        """
        listed: Listed[T] = Listed([], "")
        decode = decoder_of(resource.type).decode
        pages = self.list_pages(
            resource, namespace, label_selector=label_selector, field_selector=field_selector, limit=limit
        )
        async for page in pages:
            if page.first:
                listed = Listed([], "")
            for raw in page.items:
                try:
                    listed.items.append(decode(raw))
                except msgspec.ValidationError as error:
                    metadata = metadata_of(raw)
                    listed.undecodable[metadata.key] = Undecodable(metadata, str(error))
            listed.resource_version = page.resource_version
        return listed

    async def list_pages(
        self,
        resource: Resource[T],
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
    ) -> AsyncIterator[Page]:
        """Read a list page by page, without holding all of it in memory.

        If the server drops the list's version between two pages (410), the list is restarted, the second time without
        pages; the next page then has ``first`` set.

        Raises:
            KubeError: The server refused or cannot be reached.
        """
        what, path = _words("list", resource, namespace), _path(resource, namespace)
        base = _selectors(label_selector, field_selector)
        token, size, first = "", limit, True
        while True:
            query = {
                **base,
                **({"limit": str(size)} if size else {}),
                **({"continue": token} if token else {}),
            }
            try:
                body = await self._transport.send(
                    Request(what, "GET", path, query), timeout_seconds=_LIST_PAGE_SECONDS
                )
            except Expired:
                if not token:
                    raise
                log.info("list expired between two pages, starting again", resource=resource.plural)
                token, first = "", True
                size = 0 if size != limit else limit * 10
                continue
            try:
                found = _decode_list(body)
            except msgspec.MsgspecError as error:
                raise Invalid(f"{what}: the answer is not a list: {error}") from error
            yield Page(found.items or [], found.metadata.resource_version, first)
            token, first = found.metadata.continue_, False
            if not token:
                return

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource[T],
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
        silence_seconds: float = 120.0,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch with bookmarks; yields its bytes in chunks: JSON events, one per line.

        Args:
            resource: The resource.
            namespace: Only objects of this namespace.
            resource_version: Where to continue from.
            label_selector: As in :meth:`list`.
            field_selector: As in :meth:`list`.
            timeout_seconds: After this long the server ends the watch cleanly.
            silence_seconds: After this long without a byte the watch counts as dead. A server sends a bookmark
                every minute.

        Raises:
            Expired: The version is too old; list again. May also come as an ERROR event.
            KubeError: On opening, or from the iteration.
        """
        query = {
            **_selectors(label_selector, field_selector),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        request = Request(_words("watch", resource, namespace), "GET", _path(resource, namespace), query)
        async with self._transport.stream(request, silence_seconds=silence_seconds) as chunks:
            yield chunks

    def websocket(
        self, what: str, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """Open a WebSocket to a path of the API; see :meth:`fast.kube.transport.Transport.websocket`."""
        return self._transport.websocket(Request(what, "GET", path), query, protocols)

    async def _send(self, resource: Resource[T], request: Request) -> T:
        body = await self._transport.send(request)
        try:
            found: T = decoder_of(resource.type).decode(body)
        except msgspec.MsgspecError as error:
            raise Invalid(f"{request.what}: the answer does not fit {resource.kind}: {error}") from error
        return found


def _path(resource: Resource[T], namespace: str | None, name: str = "", subresource: str = "") -> str:
    """The URL path, each part percent-encoded: a name must not be able to change the URL."""
    if name and resource.namespaced and not namespace:
        raise ValueError(f"{resource.plural} {name}: a namespace is needed")
    return resource.path(quote(namespace or "", safe=""), quote(name, safe=""), subresource)


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    pairs = (("labelSelector", label_selector), ("fieldSelector", field_selector))
    return {key: value for key, value in pairs if value}


def _words(verb: str, resource: Resource[T], namespace: str | None, name: str = "") -> str:
    """The request as error messages show it: ``create pods default/busybox``."""
    place = "/".join(part for part in (namespace, name) if part)
    return f"{verb} {resource.plural} {place}".rstrip()
