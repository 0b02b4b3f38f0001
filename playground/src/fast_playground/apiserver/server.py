"""The HTTP side: from a request to a verb and back. What the verbs do lives in ``verbs``; watches in ``streaming``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import structlog
from aiohttp import web

from fast_playground.apiserver import discovery, http_requests, status
from fast_playground.apiserver.access import AccessControl
from fast_playground.apiserver.access.reviews import REVIEWS, review
from fast_playground.apiserver.api import Object, Options, User
from fast_playground.apiserver.exec import PodExec
from fast_playground.apiserver.http_requests import Target, View
from fast_playground.apiserver.kinds import NAMESPACES, PODS
from fast_playground.apiserver.pages import Page, list_page
from fast_playground.apiserver.registry import Kind
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.selectors import Selector, parse_selector
from fast_playground.apiserver.status import ApiError
from fast_playground.apiserver.storage import encode
from fast_playground.apiserver.streaming import Watch, stream
from fast_playground.apiserver.tables import partial_metadata, table

_OPEN_PATHS = ("/healthz", "/livez", "/readyz")
_HEADERS = {"Cache-Control": "no-cache, private"}
log = structlog.get_logger()


def _json(
    body: Any, code: int = 200, view: View | None = None, options: Options | None = None
) -> web.Response:
    raw = body if isinstance(body, bytes) else encode(body)
    response = web.Response(body=raw, status=code, headers=_HEADERS)
    response.headers["Content-Type"] = view.content_type if view else http_requests.JSON
    for warning in options.warnings if options else ():
        text = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{text}"')
    return response


def _plain(text: str, code: int = 200) -> web.Response:
    return web.Response(text=text, status=code, content_type="text/plain", charset="utf-8")


_PAGE_NOT_FOUND = "404 page not found\n"


class Handler:
    """Answers every request.

    Args:
        verbs: What the requests ask for.
        access: Who may.
        exec_: Serves ``kubectl exec``.
    """

    def __init__(self, verbs: Verbs, access: AccessControl, exec_: PodExec) -> None:
        self._verbs = verbs
        self._access = access
        self._exec = exec_

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; nothing but a cancellation is raised."""
        try:
            # aiohttp's bare server makes BaseRequests, which have all that is used of a Request.
            return await self._answer(cast(web.Request, request))
        except ApiError as error:
            response = _json(error.to_status(), error.code)
            if error.code in (408, 413):  # what is left of the body is not worth reading
                response.force_close()
            return response
        except (ConnectionError, asyncio.IncompleteReadError):
            raise
        except Exception:
            log.exception("a request failed", method=request.method, path=request.path)
            failure = ApiError(500, "InternalError", "Internal error occurred", {})
            return _json(failure.to_status(), 500)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path in _OPEN_PATHS:
            return _plain("ok")
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        user = self._access.authenticate(request.headers, certificate)
        if user is None:
            raise status.unauthorized()
        target = http_requests.parse_target(path)
        if target is None:
            return self._answer_path(request, user)
        verb = http_requests.verb_of(request.method, target, request.query)
        self._check(user, verb, target)
        if target.gvr in REVIEWS and request.method == "POST":
            body = await http_requests.read_object(request, REVIEWS[target.gvr])
            return _json(review(self._access, user, target.gvr, body), 201)
        kind = self._verbs.registry.find(target.gvr)
        if kind is None or (target.namespace is not None and not kind.namespaced):
            return _plain(_PAGE_NOT_FOUND, 404)
        return await self._answer_kind(request, user, kind, target, verb)

    def _check(self, user: User, verb: str, target: Target) -> None:
        """Raise 403 unless the user may."""
        gvr, namespace = target.gvr, target.namespace
        if gvr == NAMESPACES and target.name:
            namespace = target.name  # as in Kubernetes: a role in the namespace may speak about it
        if verb and self._access.authorize(user, verb, gvr, namespace, target.name, target.subresource):
            return
        resource = f"{gvr.resource}/{target.subresource}" if target.subresource else gvr.resource
        place = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        why = f'User "{user.name}" cannot {verb} resource "{resource}" in API group "{gvr.group}" {place}'
        raise status.forbidden(gvr, target.name, why)

    def _answer_path(self, request: web.Request, user: User) -> web.Response:
        path = request.path.rstrip("/")
        if not self._access.authorize_path(user, request.method.lower(), path):
            message = f'forbidden: User "{user.name}" cannot {request.method.lower()} path "{path}"'
            raise ApiError(403, "Forbidden", message, {})
        if request.method != "GET":
            raise status.method_not_allowed()
        registry = self._verbs.registry
        parts = path.split("/")[1:]
        body: Object | None = None
        if path in ("/api", "/apis"):
            view = http_requests.read_view(request)
            if view.form == "APIGroupDiscoveryList":
                return _json(discovery.aggregated(registry, core=path == "/api"), view=view)
            body = discovery.api_versions(request.host) if path == "/api" else discovery.group_list(registry)
        elif path == "/version":
            body = dict(discovery.VERSION)
        elif path == "/api/v1":
            body = discovery.resource_list(registry, "", "v1")
        elif parts[:1] == ["apis"] and len(parts) == 3:  # noqa: PLR2004 -- group and version
            body = discovery.resource_list(registry, parts[1], parts[2])
        elif parts[:1] == ["apis"] and len(parts) == 2:  # noqa: PLR2004 -- a group
            body = discovery.group(registry, parts[1])
        elif path == "/openapi/v2" and discovery.OPENAPI_V2_ASKED in request.headers.get("Accept", ""):
            return web.Response(
                body=discovery.openapi_v2(), headers={"Content-Type": discovery.OPENAPI_V2_GIVEN}
            )
        elif path == "/openapi/v3":
            body = discovery.openapi_index(registry)
        elif path.startswith("/openapi/v3/"):
            body = discovery.openapi_document(registry, path.removeprefix("/openapi/v3/"))
        return _plain(_PAGE_NOT_FOUND, 404) if body is None else _json(body)

    async def _answer_kind(
        self, request: web.Request, user: User, kind: Kind, target: Target, verb: str
    ) -> web.StreamResponse:
        subresource = target.subresource
        if subresource == "exec" and kind.gvr == PODS:
            return await self._exec.handle(request, target.namespace or "", target.name)
        if subresource == "binding" and kind.gvr == PODS and verb == "create":
            options = http_requests.read_options(request, user)
            body = await http_requests.read_object(request, "Binding")
            return _json(await self._verbs.bind(target.name, target.namespace or "", body, options), 201)
        if subresource and not _has(kind, subresource):
            return _plain(_PAGE_NOT_FOUND, 404)
        if kind.namespaced and target.namespace is None and (target.name or verb == "create"):
            return _plain(_PAGE_NOT_FOUND, 404)
        if verb in ("list", "watch"):
            return await self._read_many(request, kind, target, watch=verb == "watch")
        if verb == "get":
            return self._read_one(request, kind, target)
        if verb in ("create", "update") and not (verb == "create" and (target.name or subresource)):
            return await self._write(request, user, kind, target, verb)
        if verb == "patch":
            return await self._patch(request, user, kind, target)
        if verb in ("delete", "deletecollection") and not subresource:
            return await self._delete(request, user, kind, target)
        raise status.method_not_allowed()

    def _read_one(self, request: web.Request, kind: Kind, target: Target) -> web.Response:
        view = http_requests.read_view(request)
        record = self._verbs.find_record(kind, target.name, target.namespace)
        if target.subresource == "scale":
            return _json(self._verbs.scale(kind, record))
        if not view.form:
            return _json(kind.prefix + record.raw[1:])
        return _json(_shown(view, kind, kind.whole(record.decode())))

    async def _read_many(
        self, request: web.Request, kind: Kind, target: Target, *, watch: bool
    ) -> web.StreamResponse:
        query = request.query
        view = http_requests.read_view(request)
        selector = _selector(request, kind)
        version = http_requests.parse_version(query.get("resourceVersion", ""), 500 if watch else 400)
        if watch:
            initial = http_requests.is_true(query, "sendInitialEvents")
            bookmarks = http_requests.is_true(query, "allowWatchBookmarks")
            wanted = Watch(
                kind,
                target.namespace,
                selector,
                view,
                version=None if initial else version or None,
                bookmarks=bookmarks,
                initial=initial and bookmarks,
                timeout_seconds=http_requests.read_number(query, "timeoutSeconds"),
            )
            return await stream(request, self._verbs.store, wanted)
        page = self._page(request, kind, target.namespace, selector, version)
        return _json(_listed(view, kind, page))

    def _page(
        self, request: web.Request, kind: Kind, namespace: str | None, selector: Selector, version: int | None
    ) -> Page:
        query = request.query
        token, match = query.get("continue", ""), query.get("resourceVersionMatch", "")
        store = self._verbs.store
        if match and version is None:
            raise status.bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
        if version is not None and version > store.version:
            raise status.too_large_version(version, store.version)
        return list_page(
            store,
            kind,
            namespace,
            selector,
            limit=http_requests.read_number(query, "limit"),
            token=token,
            version=version if match == "Exact" else None,
        )

    async def _write(
        self, request: web.Request, user: User, kind: Kind, target: Target, verb: str
    ) -> web.Response:
        view = http_requests.read_view(request)
        options = http_requests.read_options(request, user)
        scale = target.subresource == "scale"
        body = await http_requests.read_object(request, "Scale" if scale else kind.kind)
        if scale:
            http_requests.fill_type(body, "Scale", "autoscaling/v1")
        elif not kind.custom:
            http_requests.fill_type(body, kind.kind, kind.gvr.group_version)
        if verb == "create":
            made = await self._verbs.create(kind.gvr, body, target.namespace, options=options)
            return _json(_shown(view, kind, made), 201, options=options)
        if not target.name:
            raise status.method_not_allowed()
        made = await self._verbs.replace(
            kind.gvr, target.name, target.namespace, body, subresource=target.subresource, options=options
        )
        return _json(_shown(view, kind, made), options=options)

    async def _patch(self, request: web.Request, user: User, kind: Kind, target: Target) -> web.Response:
        if not target.name:
            raise status.method_not_allowed()
        view = http_requests.read_view(request)
        media = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        how = http_requests.PATCH_KINDS.get(media)
        if how is None or (how == "strategic" and kind.custom):
            raise status.unsupported_media_type(
                [
                    media
                    for media, how in http_requests.PATCH_KINDS.items()
                    if how != "strategic" or not kind.custom
                ]
            )
        options = http_requests.read_options(request, user)
        text = await http_requests.read_body(request)
        patch = http_requests.parse_yaml(text) if how == "apply" else http_requests.parse_json(text)
        created = False
        if how == "apply" and not target.subresource:
            if not request.query.get("fieldManager"):
                raise status.bad_request("fieldManager: Required value: is required for apply patch")
            created = not self._verbs.exists(kind, target.name, target.namespace)
            if created:
                self._check(user, "create", target._replace(name=""))
        made = await self._verbs.patch(
            kind.gvr,
            target.name,
            patch,
            target.namespace,
            kind=how,
            subresource=target.subresource,
            options=options,
        )
        return _json(_shown(view, kind, made), 201 if created else 200, options=options)

    async def _delete(self, request: web.Request, user: User, kind: Kind, target: Target) -> web.Response:
        text = await http_requests.read_body(request)
        body = http_requests.parse_any(text) if text else {}
        if not isinstance(body, dict):
            raise status.bad_request("cannot read DeleteOptions: no object")
        options = http_requests.read_options(request, user, body)
        asked = http_requests.read_deletion(request.query, body)
        if target.name:
            return _json(
                await self._verbs.delete(
                    kind.gvr,
                    target.name,
                    target.namespace,
                    grace_period_seconds=asked.grace_period_seconds,
                    propagation=asked.propagation,
                    preconditions=asked.preconditions,
                    options=options,
                ),
                options=options,
            )
        selector = _selector(request, kind)
        version = self._verbs.store.version
        gone = await self._verbs.delete_collection(kind.gvr, target.namespace, selector, asked, options)
        meta: Object = {"continue": ""} if kind.custom else {}
        head = {"apiVersion": kind.gvr.group_version, "kind": kind.list_kind}
        return _json(
            head | {"metadata": meta | {"resourceVersion": str(version)}, "items": gone}, options=options
        )


def _has(kind: Kind, subresource: str) -> bool:
    if subresource == "status":
        return kind.status
    if subresource == "scale":
        return kind.scale is not None
    return subresource == "finalize" and subresource in dict(kind.subresources)


def _selector(request: web.Request, kind: Kind) -> Selector:
    query = request.query
    return parse_selector(query.get("labelSelector", ""), query.get("fieldSelector", ""), kind.selects)


def _shown(view: View, kind: Kind, obj: Object) -> Object:
    """One object in the form asked for."""
    if view.form == "Table" and obj["kind"] == kind.kind:
        meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        return table(kind, [obj], meta, view.include)
    return partial_metadata(obj) if view.form == "PartialObjectMetadata" else obj


def _listed(view: View, kind: Kind, page: Page) -> Object | bytes:
    """A page in the form asked for."""
    meta: Object = {"resourceVersion": str(page.version)}
    if page.token or kind.custom:
        meta["continue"] = page.token
    if page.remaining is not None:
        meta["remainingItemCount"] = page.remaining
    if not view.form:
        head = encode({"apiVersion": kind.gvr.group_version, "kind": kind.list_kind, "metadata": meta})
        items: Iterable[bytes] = (record.raw for record in page.records)
        if kind.custom:  # as kube-apiserver: its own kinds leave it out within lists
            items = (kind.prefix + raw[1:] for raw in items)
        return b'%s,"items":[%s]}' % (head[:-1], b",".join(items))
    objects = (kind.whole(record.decode()) for record in page.records)
    if view.form == "Table":
        if not page.token:
            meta.pop("continue", None)
        return table(kind, objects, meta, view.include)
    listed: Object = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    return listed | {"items": [partial_metadata(obj) for obj in objects]}
