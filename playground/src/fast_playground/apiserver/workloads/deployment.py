"""The Deployment controller: a ReplicaSet for each template, and the steps from the old ones to the new one."""

from __future__ import annotations

import copy

from fast_playground.apiserver.api import ApiError, Object
from fast_playground.apiserver.kinds import DEPLOYMENTS, REPLICA_SETS
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.workloads import owned_pods, rollout
from fast_playground.apiserver.workloads.deployment_status import deployment_status
from fast_playground.apiserver.workloads.events import record_event
from fast_playground.apiserver.workloads.loop import ControlLoop, Key, controller_key, find, own_key
from fast_playground.apiserver.workloads.rollout import HASH_LABEL, REVISION, replicas

_KIND = "Deployment"
_DESIRED = "deployment.kubernetes.io/desired-replicas"
_MOST = "deployment.kubernetes.io/max-replicas"


class DeploymentController(ControlLoop[Key]):
    """Reconciles Deployments. ReplicaSets that nobody controls are not adopted.

    Args:
        api: Where they are.
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
        status, wait = deployment_status(deployment, sets, new)
        await owned_pods.write_status(self._api, DEPLOYMENTS, deployment, status)
        return wait

    async def _roll(self, deployment: Object, sets: list[Object]) -> tuple[Object, list[Object]]:
        """Take the next step from the old templates' pods to the new one's; give what there is then."""
        new, old = rollout.split(deployment, sets)
        if deployment["spec"].get("paused"):
            if new is None:
                return deployment, old
            size = max(
                0, replicas(deployment) - sum(map(replicas, old))
            )  # paused, but its scale still counts
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
        return deployment, [*await self._forget(deployment, new, old), new]

    async def _ensure_new(self, deployment: Object, new: Object | None, old: list[Object]) -> Object:
        """Have a ReplicaSet for the template, with the highest revision."""
        last = max(map(rollout.revision, old), default=0)
        if new is not None:
            return (
                new if rollout.revision(new) > last else await self._annotate(new, {REVISION: str(last + 1)})
            )
        created = await self._create(deployment, rollout.new_size(deployment, None, old), last + 1)
        message = f"Scaled up replica set {created['metadata']['name']} from 0 to {replicas(created)}"
        await record_event(self._api, deployment, _KIND, "ScalingReplicaSet", message)
        return created

    async def _create(self, deployment: Object, size: int, revision: int) -> Object:
        metadata, spec = deployment["metadata"], deployment["spec"]
        template, selector = copy.deepcopy(spec["template"]), copy.deepcopy(spec["selector"])
        collisions = (deployment.get("status") or {}).get("collisionCount", 0)
        added = {HASH_LABEL: owned_pods.template_hash(template, collisions)}
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
        try:
            return await self._api.create(
                REPLICA_SETS, replica_set, metadata["namespace"], options=owned_pods.MANAGER
            )
        except ApiError as error:
            if error.reason == "AlreadyExists":  # another template has the same hash: count on, and try anew
                status = (deployment.get("status") or {}) | {"collisionCount": collisions + 1}
                await owned_pods.write_status(self._api, DEPLOYMENTS, deployment, status)
            raise

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
        """Give a ReplicaSet another size, and note the Deployment's on it."""
        before, annotations = replicas(replica_set), _scale_annotations(deployment)
        if size == before:
            return await self._annotate(replica_set, annotations) if size else replica_set
        scaled = await self._annotate(replica_set, annotations, {"replicas": size})
        direction, name = "up" if size > before else "down", replica_set["metadata"]["name"]
        message = f"Scaled {direction} replica set {name} from {before} to {size}"
        await record_event(self._api, deployment, _KIND, "ScalingReplicaSet", message)
        return scaled

    async def _annotate(
        self, replica_set: Object, annotations: dict[str, str], spec: Object | None = None
    ) -> Object:
        """Set annotations and fields of the spec; 409 where the ReplicaSet changed since it was read."""
        metadata = replica_set["metadata"]
        if spec is None and annotations.items() <= (metadata.get("annotations") or {}).items():
            return replica_set
        version = metadata["resourceVersion"]
        patch = {"metadata": {"annotations": annotations, "resourceVersion": version}, "spec": spec or {}}
        return await self._api.patch(
            REPLICA_SETS, metadata["name"], patch, metadata["namespace"], options=owned_pods.MANAGER
        )

    async def _forget(self, deployment: Object, new: Object, old: list[Object]) -> list[Object]:
        """Delete old, empty ReplicaSets beyond the history limit, lowest revision first; give those that stay."""
        if rollout.available(new) < replicas(deployment):
            return old
        empty = sorted(filter(rollout.is_empty, old), key=rollout.revision)
        surplus = empty[: max(0, len(empty) - deployment["spec"].get("revisionHistoryLimit", 10))]
        for item in surplus:
            await self._api.delete(REPLICA_SETS, item["metadata"]["name"], item["metadata"]["namespace"])
        return [item for item in old if item not in surplus]


def _scale_annotations(deployment: Object) -> dict[str, str]:
    wanted = replicas(deployment)
    return {_DESIRED: str(wanted), _MOST: str(wanted + rollout.bounds(deployment)[0])}
