"""Sets up a playground's API server: installs what Fast needs, and tells whether the nodes are Ready."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from fast.api.crds import manifests as crd_manifests
from fast.api.meta import ObjectMeta
from fast.api.resources import IPENDPOINTS, IPSES, Resource
from fast.errors import Conflict, FastError, NotFound
from fast.kube import ClusterConfig, KubeClient
from fast_playground.cluster.fast_roles import admission_policies
from fast_playground.cluster.fast_roles import manifests as rbac_manifests
from fast_playground.cluster.pod_types import NODES, Node

_POLL_SECONDS = 0.05


class Created(msgspec.Struct):
    """Any object of an answer; only its metadata is read."""

    metadata: ObjectMeta


class Manifest(dict[str, Any]):
    """Any object, as written."""

    @property
    def metadata(self) -> ObjectMeta:
        """Its name and namespace."""
        return ObjectMeta(name=self["metadata"]["name"], namespace=self["metadata"].get("namespace", ""))


def _resource(group: str, version: str, plural: str, kind: str, namespaced: bool = False) -> Resource[Any]:
    return Resource(group, version, plural, kind, namespaced, Created)


_ADMISSION = "admissionregistration.k8s.io"
API_VERSION = "sample.fast.io/v1alpha1"
_RBAC = "rbac.authorization.k8s.io"
_RESOURCES = {
    resource.kind: resource
    for resource in (
        _resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition"),
        _resource("", "v1", "namespaces", "Namespace"),
        _resource("", "v1", "serviceaccounts", "ServiceAccount", True),
        _resource(_ADMISSION, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
        _resource(_ADMISSION, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
        _resource(_RBAC, "v1", "clusterroles", "ClusterRole"),
        _resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding"),
        _resource(_RBAC, "v1", "roles", "Role", True),
        _resource(_RBAC, "v1", "rolebindings", "RoleBinding", True),
        _resource("sample.fast.io", "v1alpha1", "ipses", "Ips"),
        _resource("sample.fast.io", "v1alpha1", "ipendpoints", "IpEndpoint"),
        _resource("", "v1", "pods", "Pod", True),
        _resource("", "v1", "services", "Service", True),
        _resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True),
    )
}


class Cluster:
    """The API server of a playground, as its administrator sees it. Each call opens its own connection.

    Args:
        kubeconfig: The administrator's.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    def answers(self) -> bool:
        """Whether the API server serves requests."""
        try:
            self.ready_nodes()
        except FastError:
            return False
        return True

    def install(self, pool: str = "") -> None:
        """Create the CRDs, the namespace, the programs' ServiceAccounts and rights, and the pool ``default-ips``.

        Existing objects are not changed.

        Args:
            pool: ``SUBNET`` or ``SUBNET=RANGE,…``; empty: no pool.
        """
        asyncio.run(self._install(pool))

    def create(self, obj: dict[str, Any]) -> None:
        """Create an object; an existing one is not changed."""

        async def create() -> None:
            async with self._client() as client:
                await _ensure(client, obj)

        asyncio.run(create())

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object; NotFound if it does not exist."""

        async def delete() -> None:
            async with self._client() as client:
                await client.delete(_RESOURCES[kind], name, namespace or None)

        asyncio.run(delete())

    def ready_nodes(self) -> dict[str, str]:
        """Return every registered node with the reason why it is not Ready; empty if it is Ready."""
        return asyncio.run(self._ready_nodes())

    def _client(self) -> KubeClient:
        return KubeClient(
            ClusterConfig.load(self._kubeconfig), user_agent="fast-playground", timeout_seconds=5
        )

    async def _install(self, pool: str) -> None:
        async with self._client() as client:
            for obj in (*crd_manifests().values(), *rbac_manifests(), *admission_policies()):
                await _ensure(client, obj)
            for resource in (IPSES, IPENDPOINTS):
                await self._wait_served(client, resource)
            if pool:
                await _ensure(client, _pool("default-ips", pool))

    @staticmethod
    async def _wait_served(client: KubeClient, resource: Resource[Any]) -> None:
        """Wait until a custom resource is served. A real API server needs a moment for this."""
        while True:
            try:
                await client.list(resource, limit=1)
            except NotFound:
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return

    async def _ready_nodes(self) -> dict[str, str]:
        async with self._client() as client:
            nodes = (await client.list(NODES)).items
        return {node.metadata.name: _problem(node) for node in nodes}


async def _ensure(client: KubeClient, obj: dict[str, Any]) -> None:
    try:
        await client.create(_RESOURCES[obj["kind"]], Manifest(obj))
    except Conflict as error:
        if not error.already_exists:
            raise


def _pool(name: str, text: str) -> dict[str, Any]:
    subnet, _, ranges = text.partition("=")
    spec = {"subnet": subnet} | ({"ips": ranges.split(",")} if ranges else {})
    return {"apiVersion": API_VERSION, "kind": "Ips", "metadata": {"name": name}, "spec": spec}


def _problem(node: Node) -> str:
    for condition in node.status.get("conditions", ()):
        if condition["type"] == "Ready":
            return (
                "" if condition["status"] == "True" else str(condition.get("message") or condition["reason"])
            )
    return "the kubelet has not reported yet"
