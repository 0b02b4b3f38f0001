"""The Deployment controller: a ReplicaSet for each template, and the steps from the old ones to the new one."""

from __future__ import annotations

import copy

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.kinds import DEPLOYMENTS, REPLICA_SETS
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.workloads import owned_pods, rollout
from fast_playground.apiserver.workloads.events import record_event
from fast_playground.apiserver.workloads.loop import ControlLoop, Key, controller_key, find, own_key
from fast_playground.apiserver.workloads.rollout import HASH_LABEL, REVISION, replicas

_KIND = "Deployment"
_DESIRED = "deployment.kubernetes.io/desired-replicas"
_MOST = "deployment.kubernetes.io/max-replicas"


class DeploymentController(ControlLoop[Key]):
    """Reconciles Deployments. It does not adopt ReplicaSets that nobody controls, and keeps all old ones.

    Args:
        api: The verbs.
    """

    def __init__(self, api: Verbs) -> None:
        sources = {DEPLOYMENTS: own_key, REPLICA_SETS: controller_key(_KIND)}
        super().__init__("deployment", api, sources)

    async def reconcile(self, key: Key) -> float | None:
        """Take one Deployment a step further, and write its status."""
        deployment = await find(self._api, DEPLOYMENTS, key)
        if deployment is None:
            return None
        sets = await owned_pods.owned(self._api, REPLICA_SETS, deployment)
        if not owned_pods.is_terminating(deployment):
            deployment, sets = await self._roll(deployment, sets)
        new, _ = rollout.split(deployment, sets)
        status = rollout.status_of(deployment, sets, new)
        await owned_pods.write_status(self._api, DEPLOYMENTS, deployment, status)
        return None

    async def _roll(self, deployment: Object, sets: list[Object]) -> tuple[Object, list[Object]]:
        """Take the next step from the old templates' pods to the new one's; give the resulting state."""
        new, old = rollout.split(deployment, sets)
        if deployment["spec"].get("paused"):
            if new is None:
                return deployment, old
            size = max(0, replicas(deployment) - sum(map(replicas, old)))  # its scale still counts
            return deployment, [*old, await self._scale(deployment, new, size)]
        if rollout.is_recreate(deployment):
            old = [await self._scale(deployment, item, 0) for item in old]
            if not all(map(rollout.is_empty, old)):
                return deployment, [*old, new] if new else old
        new = await self._ensure_new(deployment, new, old)
        deployment = await self._ensure_revision(deployment, new)
        new = await self._scale(deployment, new, rollout.new_size(deployment, new, old))
        sizes = rollout.old_sizes(deployment, new, old)
        old = [await self._scale(deployment, item, size) for item, size in zip(old, sizes, strict=True)]
        return deployment, [*old, new]

    async def _ensure_new(self, deployment: Object, new: Object | None, old: list[Object]) -> Object:
        """Ensure a ReplicaSet for the template, with the highest revision."""
        last = max(map(rollout.revision, old), default=0)
        if new is None:
            created = await self._create(deployment, rollout.new_size(deployment, None, old), last + 1)
            message = f"Scaled up replica set {created['metadata']['name']} from 0 to {replicas(created)}"
            await record_event(self._api, deployment, _KIND, "ScalingReplicaSet", message)
            return created
        if rollout.revision(new) > last:
            return new
        return await self._patch(new, {"metadata": {"annotations": {REVISION: str(last + 1)}}})

    async def _create(self, deployment: Object, size: int, revision: int) -> Object:
        metadata, spec = deployment["metadata"], deployment["spec"]
        template, selector = copy.deepcopy(spec["template"]), copy.deepcopy(spec["selector"])
        added = {HASH_LABEL: owned_pods.template_hash(template)}
        labels = ((template.get("metadata") or {}).get("labels") or {}) | added
        template["metadata"] = (template.get("metadata") or {}) | {"labels": labels}
        selector["matchLabels"] = (selector.get("matchLabels") or {}) | added
        replica_set = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{metadata['name']}-{added[HASH_LABEL]}",
                "labels": labels,
                "annotations": _scale_annotations(deployment) | {REVISION: str(revision)},
                "ownerReferences": owned_pods.controlled_by(deployment, _KIND),
            },
            "spec": {"replicas": size, "selector": selector, "template": template}
            | ({"minReadySeconds": spec["minReadySeconds"]} if spec.get("minReadySeconds") else {}),
        }
        namespace = metadata["namespace"]
        return await self._api.create(REPLICA_SETS, replica_set, namespace, options=owned_pods.MANAGER)

    async def _ensure_revision(self, deployment: Object, new: Object) -> Object:
        revision = new["metadata"]["annotations"][REVISION]
        metadata = deployment["metadata"]
        if (metadata.get("annotations") or {}).get(REVISION) == revision:
            return deployment
        patch = {"metadata": {"annotations": {REVISION: revision}}}
        return await self._api.patch(
            DEPLOYMENTS, metadata["name"], patch, metadata["namespace"], options=owned_pods.MANAGER
        )

    async def _scale(self, deployment: Object, replica_set: Object, size: int) -> Object:
        """Give a ReplicaSet another size, and note the Deployment's size on it."""
        before = replicas(replica_set)
        if size == before:
            return replica_set
        patch = {"metadata": {"annotations": _scale_annotations(deployment)}, "spec": {"replicas": size}}
        scaled = await self._patch(replica_set, patch)
        direction, name = "up" if size > before else "down", replica_set["metadata"]["name"]
        message = f"Scaled {direction} replica set {name} from {before} to {size}"
        await record_event(self._api, deployment, _KIND, "ScalingReplicaSet", message)
        return scaled

    async def _patch(self, replica_set: Object, patch: Object) -> Object:
        """Patch a ReplicaSet; 409 if it changed since it was read."""
        metadata = replica_set["metadata"]
        patch["metadata"]["resourceVersion"] = metadata["resourceVersion"]
        return await self._api.patch(
            REPLICA_SETS, metadata["name"], patch, metadata["namespace"], options=owned_pods.MANAGER
        )


def _scale_annotations(deployment: Object) -> dict[str, str]:
    wanted = replicas(deployment)
    return {_DESIRED: str(wanted), _MOST: str(wanted + rollout.bounds(deployment)[0])}
