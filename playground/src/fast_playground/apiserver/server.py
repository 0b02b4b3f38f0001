"""The HTTP side: from a request to a verb and back. The verbs are in ``resource_verbs``, watches in ``streaming``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
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


def _page_not_found() -> web.Response:
    return _plain("404 page not found\n", 404)


@dataclass(frozen=True)
class _Call:
    """A request about objects of a kind, by somebody who may send it."""

    request: web.Request
    user: User
    kind: Kind
    target: Target
    verb: str

    @property
    def selector(self) -> Selector:
        query = self.request.query
        labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        return parse_selector(labels, fields, self.kind.selects)

    def options(self, body: Object | None = None) -> Options:
        return http_requests.read_options(self.request, self.user, body)


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
            if error.code in (408, 413):  # the rest of the body is not worth reading
                response.force_close()
            return response
        except (ConnectionError, asyncio.IncompleteReadError):
            raise
        except Exception:
            log.exception("a request failed", method=request.method, path=request.path)
            failure = ApiError(500, "InternalError", "Internal error occurred", {})
            return _json(failure.to_status(), 500)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path in _OPEN_PATHS:
            return _plain("ok")
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        user = self._access.authenticate(request.headers, certificate)
        if user is None:
            raise status.unauthorized()
        target = http_requests.parse_target(request.path)
        if target is None:
            return self._answer_path(request, user)
        verb = http_requests.verb_of(request.method, target, request.query)
        self._check(user, verb, target)
        if target.gvr in REVIEWS and request.method == "POST":
            body = await http_requests.read_object(request, REVIEWS[target.gvr])
            return _json(review(self._access, user, target.gvr, body), 201)
        kind = self._verbs.registry.find(target.gvr)
        if kind is None or (target.namespace is not None and not kind.namespaced):
            return _page_not_found()
        return await self._answer_kind(_Call(request, user, kind, target, verb))

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
        path, method = request.path.rstrip("/"), request.method.lower()
        if not self._access.authorize_path(user, method, path):
            message = f'forbidden: User "{user.name}" cannot {method} path "{path}"'
            raise ApiError(403, "Forbidden", message, {})
        if method != "get":
            raise status.method_not_allowed()
        registry = self._verbs.registry
        body: Object | None = None
        match path.split("/")[1:]:
            case ["api" | "apis" as root]:
                view = http_requests.read_view(request)
                if view.form == "APIGroupDiscoveryList":
                    return _json(discovery.aggregated(registry, core=root == "api"), view=view)
                core = root == "api"
                body = discovery.api_versions(request.host) if core else discovery.group_list(registry)
            case ["version"]:
                body = dict(discovery.VERSION)
            case ["api", "v1"]:
                body = discovery.resource_list(registry, "", "v1")
            case ["apis", group, version]:
                body = discovery.resource_list(registry, group, version)
            case ["apis", group]:
                body = discovery.group(registry, group)
            case ["openapi", "v2"] if discovery.OPENAPI_V2_ASKED in request.headers.get("Accept", ""):
                headers = {"Content-Type": discovery.OPENAPI_V2_GIVEN}
                return web.Response(body=discovery.openapi_v2(), headers=headers)
            case ["openapi", "v3"]:
                body = discovery.openapi_index(registry)
            case ["openapi", "v3", *place]:
                body = discovery.openapi_document(registry, "/".join(place))
        return _page_not_found() if body is None else _json(body)

    async def _answer_kind(self, call: _Call) -> web.StreamResponse:
        kind, target, verb = call.kind, call.target, call.verb
        name, namespace, subresource = target.name, target.namespace, target.subresource
        if subresource == "exec" and kind.gvr == PODS:
            return await self._exec.handle(call.request, namespace or "", name)
        if subresource == "log" and kind.gvr == PODS and verb == "get" and self._exec.enabled:
            return await self._exec.logs(call.request, namespace or "", name)
        if subresource == "binding" and kind.gvr == PODS and verb == "create":
            body = await http_requests.read_object(call.request, "Binding")
            return _json(await self._verbs.bind(name, namespace or "", body, call.options()), 201)
        if subresource and not _has(kind, subresource):
            return _page_not_found()
        if kind.namespaced and namespace is None and (name or verb == "create"):
            return _page_not_found()
        if verb in ("list", "watch"):
            return await self._read_many(call)
        if verb == "get":
            return self._read_one(call)
        if (verb == "create" and not name) or (verb == "update" and name):
            return await self._write(call)
        if verb == "patch" and name:
            return await self._patch(call)
        if verb in ("delete", "deletecollection") and not subresource:
            return await self._delete(call)
        raise status.method_not_allowed()

    def _read_one(self, call: _Call) -> web.Response:
        view, kind = http_requests.read_view(call.request), call.kind
        record = self._verbs.find_record(kind, call.target.name, call.target.namespace)
        if call.target.subresource == "scale":
            return _json(self._verbs.scale(kind, record))
        if not view.form:
            return _json(kind.prefix + record.raw[1:])
        return _json(_shown(view, kind, kind.whole(record.decode())))

    async def _read_many(self, call: _Call) -> web.StreamResponse:
        query, watch, kind = call.request.query, call.verb == "watch", call.kind
        view, store = http_requests.read_view(call.request), self._verbs.store
        version = http_requests.parse_version(query.get("resourceVersion", ""), 500 if watch else 400)
        http_requests.check_match(query, watch=watch)
        if not watch:
            return _json(_listed(view, kind, self._page(call, version)))
        bookmarks = http_requests.is_true(query, "allowWatchBookmarks")
        streamed = http_requests.is_true(query, "sendInitialEvents")
        begin = version or None  # None: with the objects there are
        if "sendInitialEvents" in query:
            if version is not None and version > store.version:
                raise status.too_large_version(version, store.version)
            begin = None if streamed else begin or store.version
        wanted = Watch(
            kind,
            call.target.namespace,
            call.selector,
            view,
            version=begin,
            bookmarks=bookmarks,
            initial=streamed and bookmarks,
            timeout_seconds=http_requests.read_number(query, "timeoutSeconds"),
        )
        return await stream(call.request, store, wanted)

    def _page(self, call: _Call, version: int | None) -> Page:
        query, store = call.request.query, self._verbs.store
        if version is not None and version > store.version:
            raise status.too_large_version(version, store.version)
        return list_page(
            store,
            call.kind,
            call.target.namespace,
            call.selector,
            limit=0 if query.get("resourceVersion") == "0" else http_requests.read_number(query, "limit"),
            token=query.get("continue", ""),
            version=version if query.get("resourceVersionMatch") == "Exact" else None,
        )

    async def _write(self, call: _Call) -> web.Response:
        kind, target = call.kind, call.target
        view, options = http_requests.read_view(call.request), call.options()
        scale = target.subresource == "scale"
        body = await http_requests.read_object(call.request, "Scale" if scale else kind.kind)
        if scale:
            http_requests.fill_type(body, "Scale", "autoscaling/v1")
        elif not kind.custom:
            http_requests.fill_type(body, kind.kind, kind.gvr.group_version)
        if call.verb == "create":
            made = await self._verbs.create(kind.gvr, body, target.namespace, options=options)
            return _json(_shown(view, kind, made), 201, options=options)
        made = await self._verbs.replace(
            kind.gvr, target.name, target.namespace, body, subresource=target.subresource, options=options
        )
        return _json(_shown(view, kind, made), options=options)

    async def _patch(self, call: _Call) -> web.Response:
        kind, target = call.kind, call.target
        view, options = http_requests.read_view(call.request), call.options()
        media = call.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        kinds = {
            m: how for m, how in http_requests.PATCH_KINDS.items() if not (kind.custom and how == "strategic")
        }
        if (how := kinds.get(media)) is None:
            raise status.unsupported_media_type(list(kinds))
        text = await http_requests.read_body(call.request)
        patch = http_requests.parse_yaml(text) if how == "apply" else http_requests.parse_json(text)
        created = False
        if how == "apply" and not target.subresource:
            if not call.request.query.get("fieldManager"):
                raise status.bad_request("fieldManager: Required value: is required for apply patch")
            created = not self._verbs.exists(kind, target.name, target.namespace)
            if created:
                self._check(call.user, "create", target._replace(name=""))
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

    async def _delete(self, call: _Call) -> web.Response:
        kind, target = call.kind, call.target
        text = await http_requests.read_body(call.request)
        body = http_requests.parse_any(text) if text else {}
        if not isinstance(body, dict):
            raise status.bad_request("cannot read DeleteOptions: no object")
        options = call.options(body)
        asked = http_requests.read_deletion(call.request.query, body)
        if target.name:
            gone = await self._verbs.remove(kind, target.name, target.namespace, asked, options)
            return _json(gone, options=options)
        version = self._verbs.store.version
        items = await self._verbs.delete_collection(kind.gvr, target.namespace, call.selector, asked, options)
        meta: Object = ({"continue": ""} if kind.custom else {}) | {"resourceVersion": str(version)}
        head = {"apiVersion": kind.gvr.group_version, "kind": kind.list_kind}
        return _json(head | {"metadata": meta, "items": items}, options=options)


def _has(kind: Kind, subresource: str) -> bool:
    return {
        "status": kind.status,
        "scale": kind.scale is not None,
        "finalize": "finalize" in dict(kind.subresources),
    }.get(subresource, False)


def _shown(view: View, kind: Kind, obj: Object) -> Object:
    """One object in the form asked for."""
    if view.form == "Table" and obj["kind"] == kind.kind:
        meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        return table(kind, [obj], meta, view.include)
    return partial_metadata(obj) if view.form == "PartialObjectMetadata" else obj


def _listed(view: View, kind: Kind, page: Page) -> Object | bytes:
    """A page in the form asked for."""
    meta: Object = {"resourceVersion": str(page.version)}
    if page.token or (kind.custom and view.form != "Table"):
        meta["continue"] = page.token
    if page.remaining is not None:
        meta["remainingItemCount"] = page.remaining
    if not view.form:
        head = encode({"apiVersion": kind.gvr.group_version, "kind": kind.list_kind, "metadata": meta})
        items: Iterable[bytes] = (record.raw for record in page.records)
        if kind.custom:  # as kube-apiserver: items of its own kinds do not say their kind within lists
            items = (kind.prefix + raw[1:] for raw in items)
        return b'%s,"items":[%s]}' % (head[:-1], b",".join(items))
    objects = (kind.whole(record.decode()) for record in page.records)
    if view.form == "Table":
        return table(kind, objects, meta, view.include)
    listed: Object = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    return listed | {"items": [partial_metadata(obj) for obj in objects]}
