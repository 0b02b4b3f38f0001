"""Reading HTTP requests: which resource a path means, which form the client accepts, what its body holds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import yaml
from aiohttp import web

from fast_playground.apiserver import protobuf
from fast_playground.apiserver.api import Object, Options, User
from fast_playground.apiserver.deletion import Deletion
from fast_playground.apiserver.kinds import GVR
from fast_playground.apiserver.status import (
    ApiError,
    bad_request,
    forbidden_field,
    invalid,
    unsupported,
    unsupported_media_type,
)

#: As kube-apiserver's.
MAX_BODY_BYTES = 3 * 1024 * 1024
BODY_SECONDS = 30.0
JSON = "application/json"
PATCH_KINDS = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_TRUE = ("1", "true", "True", "t")


class Target(NamedTuple):
    """What a path means. An empty name: the collection."""

    gvr: GVR
    namespace: str | None
    name: str
    subresource: str


class View(NamedTuple):
    """In which form the client wants objects."""

    form: str = ""  #: ``Table``, ``PartialObjectMetadata``, ``APIGroupDiscoveryList``, or empty: as they are.
    content_type: str = JSON
    include: str = "Metadata"  #: What a table's rows carry of their objects.


def parse_target(path: str) -> Target | None:
    """Read ``/api/v1/…`` and ``/apis/GROUP/VERSION/…``; None for what is no resource."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"]:
        group, rest = "", parts[1:]
    elif parts[:1] == ["apis"] and len(parts) > 1:
        group, rest = parts[1], parts[2:]
    else:
        return None
    if len(rest) < 2:  # noqa: PLR2004 -- a version and a resource
        return None
    version, rest = rest[0], rest[1:]
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2 and not (group == "" and rest[2] in ("status", "finalize")):  # noqa: PLR2004
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:  # noqa: PLR2004 -- resource, name, subresource
        return None
    resource, name, subresource = (*rest, "", "")[:3]
    return Target(GVR(group, version, resource), namespace, name, subresource)


def verb_of(method: str, target: Target, query: Mapping[str, str]) -> str:
    """The verb that a request needs leave for; empty for a method that has none."""
    if target.subresource == "exec":
        return "create"
    verb = _VERBS.get(method, "")
    if not target.name:
        if verb == "get":
            return "watch" if is_true(query, "watch") else "list"
        if verb == "delete":
            return "deletecollection"
    return verb


def is_true(query: Mapping[str, str], name: str) -> bool:
    """Whether a query's flag is set."""
    return query.get(name) in _TRUE


def read_view(request: web.Request) -> View:
    """Choose the first form of the Accept header that the server has. Raises ApiError: 406 if it has none."""
    include = request.query.get("includeObject", "Metadata")
    for entry in (request.headers.get("Accept") or "*/*").split(","):
        media, *more = (part.strip() for part in entry.split(";"))
        params = dict(part.split("=", 1) for part in more if "=" in part)
        if media not in (JSON, "application/*", "*/*"):
            continue
        form = params.get("as", "")
        if not form:
            return View()
        if form in ("Table", "PartialObjectMetadata", "PartialObjectMetadataList"):
            if params.get("g") == "meta.k8s.io" and params.get("v") == "v1":
                return View(form.removesuffix("List"), include=include)
        elif form == "APIGroupDiscoveryList" and params.get("v") == "v2":
            return View(form, f"{JSON};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
    message = "only the following media types are accepted: application/json"
    raise ApiError(406, "NotAcceptable", message)


async def read_body(request: web.Request) -> bytes:
    """Read the body. Raises ApiError: 413 if it is too large, 408 if it takes too long."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    message = f"Request entity too large: limit is {MAX_BODY_BYTES}"
                    raise ApiError(413, "RequestEntityTooLarge", message, {})
                chunks.append(chunk)
    except TimeoutError as error:
        raise ApiError(408, "Timeout", "the request's body took too long", {}) from error
    return b"".join(chunks)


async def read_object(request: web.Request, kind: str) -> Any:
    """Read a JSON, YAML or (as far as kubectl needs) protobuf body.

    Args:
        request: It.
        kind: What it must be, for messages.

    Raises:
        ApiError: 400 for what is neither, 415 for another Content-Type.
    """
    media = request.headers.get("Content-Type", JSON).partition(";")[0].strip().lower()
    if media not in (JSON, "application/yaml", protobuf.MEDIA_TYPE):
        raise unsupported_media_type([JSON, "application/yaml"])
    body = await read_body(request)
    made = parse_json(body) if media == JSON else parse_any(body)
    if not isinstance(made, dict):
        shown = body[:256].hex()
        why = "couldn't get version/kind; json parse error: the body is no JSON object"
        raise bad_request(f"the object provided is unrecognized (must be of type {kind}): {why} ({shown})")
    return made


def fill_type(obj: Any, kind: str, version: str) -> None:
    """Say, in place, what a body is that does not say so itself: built-in kinds' bodies may leave that to the path."""
    obj["kind"] = obj.get("kind") or kind
    obj["apiVersion"] = obj.get("apiVersion") or version


def parse_json(body: bytes) -> Any:
    """Read JSON. Raises ApiError: 400."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error


def parse_any(body: bytes) -> Any:
    """Read protobuf, JSON or YAML, whichever it is. Raises ApiError: 400, or 415 for protobuf that is not known."""
    return protobuf.decode(body) if body.startswith(protobuf.MAGIC) else parse_yaml(body)


class _YamlLoader(yaml.CSafeLoader):
    """Leaves what looks like a time the text that it is, as Kubernetes does."""


_YamlLoader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: str(node.value))


def parse_yaml(body: bytes) -> Any:
    """Read YAML, which JSON is too; without aliases, by which a short text can mean a huge one.

    Raises:
        ApiError: 400.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(body, Loader=yaml.CSafeLoader)):
            raise bad_request("yaml: aliases are not supported")
        loaded = yaml.load(body, Loader=_YamlLoader)  # noqa: S506 -- a safe one
        # What YAML has beyond JSON (keys that are no strings, sets) becomes JSON, or is an error.
        return msgspec.json.decode(msgspec.json.encode(loaded))
    except (yaml.YAMLError, RecursionError, TypeError, ValueError, OverflowError) as error:
        raise bad_request(f"error converting YAML to JSON: {error}") from error


def read_options(request: web.Request, user: User, body: Object | None = None) -> Options:
    """Read how a write is to be done, and by whom, from the query (and a deletion's body).

    Raises:
        ApiError: 400 for invalid values.
    """
    query = request.query
    dry = query.getall("dryRun", []) or (body or {}).get("dryRun") or []
    if any(value != "All" for value in dry):
        raise bad_request(f'dryRun: Unsupported value: {dry}: supported values: "All"')
    validation = query.get("fieldValidation", "Warn") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        raise bad_request(f'fieldValidation: Unsupported value: "{validation}"')
    agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
    return Options(
        dry_run=bool(dry),
        field_validation=validation,
        manager=query.get("fieldManager") or agent,
        force=is_true(query, "force"),
        user=user,
    )


def read_deletion(query: Mapping[str, str], body: Object) -> Deletion:
    """Read DeleteOptions from the body, else the query. Raises ApiError: 400 for invalid values."""
    grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy")
    preconditions = body.get("preconditions") or {}
    try:
        seconds = None if grace is None else int(grace)
        wanted = {str(k): str(v) for k, v in preconditions.items() if v is not None}
    except (TypeError, ValueError, AttributeError) as error:
        raise bad_request(f"cannot read DeleteOptions: {error}") from error
    return Deletion(seconds, propagation, wanted)


def check_match(query: Mapping[str, str], *, watch: bool) -> None:
    """Refuse combinations of list and watch options that kube-apiserver refuses.

    Raises:
        ApiError: 422. Source: apimachinery's ValidateListOptions.
    """
    match, streamed = query.get("resourceVersionMatch", ""), "sendInitialEvents" in query
    errors = []
    if streamed and not watch:
        errors.append(forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if streamed and watch and match != "NotOlderThan":
        why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        errors.append(forbidden_field("resourceVersionMatch", why))
    if match:
        known = ("NotOlderThan",) if watch else ("Exact", "NotOlderThan", "")
        forbidden = {
            "for watch unless sendInitialEvents is provided": watch and not streamed,
            "unless resourceVersion is provided": not watch and not query.get("resourceVersion"),
            "when continue is provided": bool(query.get("continue")),
        }
        errors += [
            forbidden_field("resourceVersionMatch", f"resourceVersionMatch is forbidden {when}")
            for when, holds in forbidden.items()
            if holds
        ]
        if match not in known:
            errors.append(unsupported("resourceVersionMatch", match, known))
        if match == "Exact" and query.get("resourceVersion") == "0" and not watch:
            why = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            errors.append(forbidden_field("resourceVersionMatch", why))
    if errors:
        raise invalid(GVR("meta.k8s.io", "v1", "ListOptions"), "ListOptions", "", errors)


def read_number(query: Mapping[str, str], name: str) -> int:
    """Read a number of the query; 0 if it is missing. Raises ApiError: 400 if it is not one."""
    text = query.get(name, "") or "0"
    if not text.isdecimal():
        raise bad_request(f'{name}: Invalid value: "{text}": must be a number')
    return int(text)


def parse_version(text: str, code: int = 400) -> int | None:
    """Read a resourceVersion; None if it is empty. Raises ApiError: with that code if it is not one."""
    if not text:
        return None
    if not text.isdecimal():
        why = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        if code == 400:  # noqa: PLR2004 -- lists and watches differ in this, in Kubernetes too
            raise bad_request(f"invalid resource version: {why}")
        raise ApiError(code, "", why)
    return int(text)
