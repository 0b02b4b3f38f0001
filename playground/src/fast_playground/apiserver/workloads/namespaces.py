"""The namespace controller: a default ServiceAccount in each, and an empty namespace before it goes."""

from __future__ import annotations

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import NAMESPACES, SERVICE_ACCOUNTS
from fast_playground.apiserver.registry import Registry
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.workloads.loop import ControlLoop, Key, delete_if_there, find, own_key
from fast_playground.apiserver.workloads.owned_pods import is_terminating

_FINALIZER = "kubernetes"
_LOOK_AGAIN_SECONDS = 0.25  # content goes when its finalizers and grace periods allow


class NamespaceController(ControlLoop[Key]):
    """Reconciles Namespaces.

    Args:
        api: Where they are.
        registry: Which kinds there may be in one.
    """

    def __init__(self, api: Verbs, registry: Registry) -> None:
        self._registry = registry
        sources = {
            NAMESPACES: own_key,
            SERVICE_ACCOUNTS: lambda account: [Key("", account["metadata"]["namespace"])],
        }
        super().__init__("namespace", api, sources)

    async def reconcile(self, key: Key) -> float | None:
        """Ensure the default ServiceAccount of a live namespace; empty and release a terminating one."""
        namespace = await find(self._api, NAMESPACES, key)
        if namespace is None:
            return None
        if not is_terminating(namespace):
            await self._ensure_account(key.name)
        elif _FINALIZER in (namespace["spec"].get("finalizers") or []):
            if await self._empty(key.name):
                return _LOOK_AGAIN_SECONDS
            left = [item for item in namespace["spec"]["finalizers"] if item != _FINALIZER]
            released: Object = namespace | {"spec": namespace["spec"] | {"finalizers": left}}
            await self._api.update(NAMESPACES, released, subresource="finalize")
        return None

    async def _ensure_account(self, namespace: str) -> None:
        if await find(self._api, SERVICE_ACCOUNTS, Key(namespace, "default")) is None:
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            await self._api.create(SERVICE_ACCOUNTS, account, namespace)

    async def _empty(self, namespace: str) -> bool:
        """Delete everything in a namespace; tell whether something is still left."""
        left = False
        for kind in self._registry:
            if not kind.namespaced:
                continue
            for obj in await self._api.list(kind.gvr, namespace):
                if not is_terminating(obj):
                    await delete_if_there(self._api, kind.gvr, obj["metadata"])
            left = left or bool(await self._api.list(kind.gvr, namespace))
        return left
