"""The reviews by which a client asks about itself: ``kubectl auth can-i`` and ``whoami``. Nothing is stored."""

from __future__ import annotations

from fast_playground.apiserver.access.access_control import AccessControl
from fast_playground.apiserver.access.tokens import MASTERS
from fast_playground.apiserver.api import ApiError, Object, User
from fast_playground.apiserver.kinds import GVR

#: What can be posted to ``review``, with its kind.
REVIEWS = {
    GVR("authentication.k8s.io", "v1", "selfsubjectreviews"): "SelfSubjectReview",
    GVR("authorization.k8s.io", "v1", "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    GVR("authorization.k8s.io", "v1", "selfsubjectrulesreviews"): "SelfSubjectRulesReview",
}


def review(access: AccessControl, user: User, gvr: GVR, body: Object) -> Object:
    """Answer one review.

    Args:
        access: The policy to ask.
        user: Who asks, about itself.
        gvr: One of ``REVIEWS``.
        body: The review as posted.

    Returns:
        The review with its ``status`` filled in.

    Raises:
        ApiError: 422 for a review without attributes.
    """
    spec = body.get("spec") or {}
    if REVIEWS[gvr] == "SelfSubjectReview":
        info: Object = {"username": user.name, "groups": list(user.groups)}
        extra = {"extra": {key: list(values) for key, values in user.extra.items()}} if user.extra else {}
        status: Object = {"userInfo": info | extra}
    elif REVIEWS[gvr] == "SelfSubjectAccessReview":
        status = {"allowed": _allowed(access, user, spec)}
    else:
        status = _rules(access, user, spec.get("namespace") or None)
    return body | {"metadata": body.get("metadata") or {}, "status": status}


def _allowed(access: AccessControl, user: User, spec: Object) -> bool:
    if path := spec.get("nonResourceAttributes"):
        return access.authorize_path(user, path.get("verb", ""), path.get("path", ""))
    asked = spec.get("resourceAttributes")
    if not asked:
        raise ApiError(
            422, "Invalid", "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        )
    gvr = GVR(asked.get("group", ""), asked.get("version", ""), asked.get("resource", ""))
    place = asked.get("namespace") or None
    return access.authorize(
        user, asked.get("verb", ""), gvr, place, asked.get("name", ""), asked.get("subresource", "")
    )


def _rules(access: AccessControl, user: User, namespace: str | None) -> Object:
    rules = list(access.policy.rules_of(user, namespace))
    if MASTERS in user.groups:
        rules += [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    return {
        "resourceRules": [rule for rule in rules if rule.get("resources")],
        "nonResourceRules": [rule for rule in rules if rule.get("nonResourceURLs")],
        "incomplete": False,
    }
