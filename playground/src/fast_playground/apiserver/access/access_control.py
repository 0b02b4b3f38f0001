"""Access control as the server asks for it: who sent a request, and what the live policy lets them do."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import structlog
from multidict import MultiMapping

from fast_playground.apiserver.access.bootstrap import BOOTSTRAP
from fast_playground.apiserver.access.rbac import Policy
from fast_playground.apiserver.access.tokens import AUTHENTICATED, MASTERS, SERVICE_ACCOUNT_PREFIX, TokenStore
from fast_playground.apiserver.api import ApiError, Change, Object, User
from fast_playground.apiserver.kinds import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, GVR, ROLE_BINDINGS, ROLES
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.status import forbidden

_ROLE_RESOURCES = (ROLES, CLUSTER_ROLES)
_BINDING_RESOURCES = (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)
_USERS = GVR("", "v1", "users")
_GROUPS = GVR("", "v1", "groups")
_USER_EXTRAS = GVR("authentication.k8s.io", "v1", "userextras")
_EXTRA = "impersonate-extra-"
_RETRY_SECONDS = 0.05
_logger = structlog.get_logger()


class AccessControl:
    """Decides by bearer tokens, client certificates and the stored RBAC objects.

    Until ``start`` was awaited, only ``system:masters`` may do anything.

    Args:
        tokens: Whose token is which.
    """

    def __init__(self, tokens: TokenStore) -> None:
        self._tokens = tokens
        self.policy = Policy()

    async def start(self, api: Verbs) -> None:
        """Store the bootstrap roles if they are missing, and load the policy; ``follow`` keeps it up to date."""
        for role, binding in BOOTSTRAP:
            for gvr, obj in ((CLUSTER_ROLES, role), (CLUSTER_ROLE_BINDINGS, binding)):
                await _create_if_missing(api, gvr, copy.deepcopy(obj))
        await self._load(api)

    def authenticate(
        self, headers: MultiMapping[str], peer_certificate: Mapping[str, Any] | None
    ) -> User | None:
        """Tell who asks; None if the credentials are unknown.

        Raises:
            ApiError: 403 if the request impersonates somebody (kubectl ``--as``) and its sender must not.
        """
        user = _certified_user(peer_certificate) or self._bearer(headers)
        if user is None or "Impersonate-User" not in headers:
            return user
        return self._impersonated(user, headers)

    def authorize(
        self, user: User, verb: str, gvr: GVR, namespace: str | None, name: str, subresource: str
    ) -> bool:
        """Tell whether the user may do it: always in ``system:masters``, else by the roles bound to the user."""
        return MASTERS in user.groups or self.policy.allows(user, verb, gvr, namespace, name, subresource)

    def authorize_path(self, user: User, verb: str, path: str) -> bool:
        """Tell whether the user may ask for a path that is no resource."""
        return MASTERS in user.groups or self.policy.allows_path(user, verb, path)

    def _bearer(self, headers: MultiMapping[str]) -> User | None:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        return self._tokens.find_user(token.strip()) if scheme.lower() == "bearer" else None

    def _impersonated(self, user: User, headers: MultiMapping[str]) -> User:
        name = headers["Impersonate-User"]
        groups = headers.getall("Impersonate-Group", [])
        extra = {
            unquote(header[len(_EXTRA) :]).lower(): tuple(headers.getall(header))
            for header in headers
            if header.lower().startswith(_EXTRA)
        }
        wanted = [(_USERS, name, ""), *((_GROUPS, group, "") for group in groups)]
        wanted += [(_USER_EXTRAS, value, key) for key, values in extra.items() for value in values]
        for gvr, target, subresource in wanted:
            if not self.authorize(user, "impersonate", gvr, None, target, subresource):
                resource = f"{gvr.resource}/{subresource}" if subresource else gvr.resource
                why = (
                    f'User "{user.name}" cannot impersonate resource "{resource}" in API group "{gvr.group}"'
                )
                raise forbidden(gvr, target, f"{why} at the cluster scope")
        if name.startswith(SERVICE_ACCOUNT_PREFIX):
            namespace = name.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")[0]
            groups = [*groups, "system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        return User(name, (*groups, AUTHENTICATED), extra)

    async def _load(self, api: Verbs) -> None:
        policy = Policy()
        for gvr in (*_ROLE_RESOURCES, *_BINDING_RESOURCES):
            for obj in await api.list(gvr):
                _apply(policy, ("ADDED", gvr, obj))
        self.policy = policy

    async def follow(self, api: Verbs) -> None:
        """Follow the policy's changes until cancelled."""
        while True:
            try:
                await self._load(api)
                async for change in api.subscribe(*_ROLE_RESOURCES, *_BINDING_RESOURCES):
                    _apply(self.policy, change)
            except ApiError as error:
                _logger.warning("the access policy is loaded again", reason=error.message)
            await asyncio.sleep(_RETRY_SECONDS)


async def _create_if_missing(api: Verbs, gvr: GVR, obj: Object) -> None:
    """Create an object; one that exists stays as the administrator left it."""
    try:
        await api.create(gvr, obj)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise


def _apply(policy: Policy, change: Change) -> None:
    event, gvr, obj = change
    objects = policy.roles if gvr in _ROLE_RESOURCES else policy.bindings
    key = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
    if event == "DELETED":
        objects.pop(key, None)
    else:
        objects[key] = obj


def _certified_user(certificate: Mapping[str, Any] | None) -> User | None:
    """Read user and groups from a verified certificate's subject, as ``ssl.SSLSocket.getpeercert`` gives it."""
    if not certificate:
        return None
    fields = [field for part in certificate.get("subject", ()) for field in part]
    name = next((value for key, value in fields if key == "commonName"), None)
    groups = tuple(value for key, value in fields if key == "organizationName")
    return User(name, (*groups, AUTHENTICATED)) if name else None
