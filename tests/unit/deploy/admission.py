"""A ValidatingAdmissionPolicy of deploy/base, its expressions evaluated by the CEL library. No assertions."""

import functools
from typing import Any

import cel

from unit.deploy.manifests import kustomized

NODE_NAME = "authentication.kubernetes.io/node-name"
AGENT = "system:serviceaccount:fast-system:fast-agent"


def verdict(
    policy: str,
    operation: str,
    new: Any = None,
    old: Any = None,
    *,
    resource: str = "ipendpoints",
    node: str = "n1",
    user: str = AGENT,
) -> str:
    """Say what the policy answers: the message of its first refusal; empty if it lets the request pass.

    Args:
        policy: The policy's name.
        operation: CREATE, UPDATE or DELETE.
        new: The object; None for DELETE.
        old: The object before; None for CREATE.
        resource: Plural, without subresource.
        node: The node in the token; empty for a token without one.
        user: Who asks.
    """
    spec = kustomized()[f"ValidatingAdmissionPolicy/{policy}"]["spec"]
    info = {"username": user} | ({"extra": {NODE_NAME: [node]}} if node else {})
    request = {"operation": operation, "userInfo": info, "resource": {"resource": resource}}
    known = {"request": request, "object": new, "oldObject": old}

    def evaluate(expression: str, **more: Any) -> Any:
        return _compiled(expression).execute(cel.Context(variables=known | more))

    if not all(evaluate(condition["expression"]) for condition in spec["matchConditions"]):
        return ""
    variables: dict[str, Any] = {}
    for variable in spec["variables"]:
        variables[variable["name"]] = evaluate(variable["expression"], variables=variables)
    refusals = [
        v["message"] for v in spec["validations"] if not evaluate(v["expression"], variables=variables)
    ]
    return refusals[0] if refusals else ""


@functools.cache
def _compiled(expression: str) -> Any:
    return cel.compile(expression)
