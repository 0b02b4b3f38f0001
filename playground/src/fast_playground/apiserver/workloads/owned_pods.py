"""What the controllers that own pods share: find, judge, create and delete pods. How many is not decided here."""

from __future__ import annotations

import copy
import hashlib
import json

from fast_playground.apiserver.api import ApiError, Object, Options
from fast_playground.apiserver.kinds import GVR, PODS
from fast_playground.apiserver.metadata import SAFE_ALPHABET, seconds_since
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.workloads.events import record_event
from fast_playground.apiserver.workloads.loop import controller_of, delete_if_there

MANAGER = Options(manager="kube-controller-manager", field_validation="Ignore")


def is_active(pod: Object) -> bool:
    """Whether a pod counts: it has not finished and is not terminating."""
    return not is_terminating(pod) and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def is_terminating(obj: Object) -> bool:
    """Whether deletion was asked for."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def ready_since(pod: Object) -> str | None:
    """Tell since when the pod is Ready; None if it is not."""
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition["type"] == "Ready" and condition["status"] == "True":
            since: str = condition.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"]
            return since
    return None


def available_in(pod: Object, min_ready_seconds: int) -> float | None:
    """Give the seconds until the pod counts as available: 0 if it does, None if it is not ready."""
    since = ready_since(pod)
    if since is None:
        return None
    return max(0.0, min_ready_seconds - seconds_since(since))


def counts(pods: list[Object], min_ready_seconds: int) -> tuple[int, int, float | None]:
    """Count ready and available pods, and give the seconds until one more becomes available (None: none will)."""
    waits = [wait for pod in pods if (wait := available_in(pod, min_ready_seconds)) is not None]
    return len(waits), waits.count(0.0), min((wait for wait in waits if wait > 0), default=None)


async def owned(api: Verbs, gvr: GVR, owner: Object) -> list[Object]:
    """List the objects that an object controls, oldest first."""
    metadata = owner["metadata"]
    found = [
        obj
        for obj in await api.list(gvr, metadata["namespace"])
        if (reference := controller_of(obj)) and reference["uid"] == metadata["uid"]
    ]
    return sorted(found, key=lambda obj: (obj["metadata"]["creationTimestamp"], obj["metadata"]["name"]))


def controlled_by(owner: Object, kind: str) -> list[Object]:
    """Make the owner reference of a controller, as ``metadata.ownerReferences`` of what it makes."""
    metadata = owner["metadata"]
    identity = {"apiVersion": "apps/v1", "kind": kind, "name": metadata["name"], "uid": metadata["uid"]}
    return [identity | {"controller": True, "blockOwnerDeletion": True}]


async def create_pod(
    api: Verbs, owner: Object, kind: str, metadata: Object, spec: Object | None = None
) -> Object:
    """Create a pod from its owner's template, and say so in an event about the owner.

    Args:
        api: Where.
        owner: The controller; has ``spec.template``.
        kind: The owner's kind.
        metadata: ``name`` or ``generateName``, and labels beyond the template's.
        spec: Fields of the pod's spec beyond the template's.
    """
    template = copy.deepcopy(owner["spec"]["template"])
    from_template = template.get("metadata") or {}
    labels = (from_template.get("labels") or {}) | metadata.get("labels", {})
    pod_metadata = {
        key: from_template[key] for key in ("annotations", "finalizers") if from_template.get(key)
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": pod_metadata
        | metadata
        | {"labels": labels, "ownerReferences": controlled_by(owner, kind)},
        "spec": template["spec"] | (spec or {}),
    }
    try:
        created = await api.create(PODS, pod, owner["metadata"]["namespace"], options=MANAGER)
    except ApiError as error:
        await record_event(api, owner, kind, "FailedCreate", f"Error creating: {error.message}", warning=True)
        raise
    await record_event(api, owner, kind, "SuccessfulCreate", f"Created pod: {created['metadata']['name']}")
    return created


async def delete_pod(api: Verbs, owner: Object, kind: str, pod: Object) -> None:
    """Delete exactly this pod, with its own grace period."""
    if await delete_if_there(api, PODS, pod["metadata"]):
        message = f"Deleted pod: {pod['metadata']['name']}"
        await record_event(api, owner, kind, "SuccessfulDelete", message)


async def write_status(api: Verbs, gvr: GVR, obj: Object, status: Object) -> None:
    """Replace an object's status if it differs. Fields that are None are left out."""
    wanted = {key: value for key, value in status.items() if value is not None}
    if wanted != (obj.get("status") or {}):
        await api.update(gvr, obj | {"status": wanted}, subresource="status", options=MANAGER)


def template_hash(template: Object) -> str:
    """Hash a pod template into a short name, in the shape of Kubernetes' ``pod-template-hash``."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).digest()
    return "".join(SAFE_ALPHABET[byte % len(SAFE_ALPHABET)] for byte in digest[:10])
