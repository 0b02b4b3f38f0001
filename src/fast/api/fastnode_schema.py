"""What the FastNode type cannot express of its CustomResourceDefinition: descriptions, lengths, CEL rules, columns."""

from __future__ import annotations

from typing import Any

from fast.api.fastnode import MOST_ADDRESSES, MOST_PROBLEMS
from fast.api.openapi import Annotations
from fast.net import SPECIAL_NETWORKS

_LONGEST_ADDRESS = 45
_NOT_SPECIAL = " && ".join(f'!cidr("{network}").containsIP(self)' for network in SPECIAL_NETWORKS)

_CONDITION = "status.conditions[]"


def condition_annotations(description: str) -> Annotations:
    """Annotate ``status.conditions``, a list of ``metav1.Condition``."""
    return {
        "status.conditions": {
            "description": description,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
        f"{_CONDITION}": {
            "description": "One condition.",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        },
        f"{_CONDITION}.type": {"description": "The condition's type, such as Ready.", "maxLength": 316},
        f"{_CONDITION}.status": {"description": "Whether it holds.", "enum": ["True", "False", "Unknown"]},
        f"{_CONDITION}.reason": {
            "description": "Why, in one CamelCase word.",
            "minLength": 1,
            "maxLength": 1024,
        },
        f"{_CONDITION}.message": {"description": "Why, for people.", "maxLength": 32768},
        f"{_CONDITION}.lastTransitionTime": {
            "description": "When status last changed.",
            "format": "date-time",
        },
        f"{_CONDITION}.observedGeneration": {
            "description": "The metadata.generation the condition is about.",
            "minimum": 0,
        },
    }


FASTNODE: Annotations = {
    "": {"description": "FastNode is a node of Fast. Its own agent writes it; its name is the Node's."},
    "spec": {"description": "What the node is, as its agent was told or found out."},
    "spec.nodeUID": {"description": "The UID of the Node object.", "maxLength": 128},
    "spec.bootID": {"description": "The boot that the node runs.", "maxLength": 64},
    "spec.addresses": {
        "description": "The node's addresses on the underlay; the IPv4 one is what other nodes tunnel to.",
        "maxItems": MOST_ADDRESSES,
        "x-kubernetes-list-type": "atomic",
    },
    "spec.addresses[]": {
        "minLength": 1,
        "maxLength": _LONGEST_ADDRESS,
        "x-kubernetes-validations": [
            {"rule": "isIP(self)", "message": "must be an IP address"},
            {
                "rule": f"!isIP(self) || ({_NOT_SPECIAL})",
                "message": "must not be a loopback, unspecified, link-local, broadcast or multicast address",
            },
        ],
    },
    "spec.routing": {"description": "How packets reach the node's pods: vxlan or native.", "maxLength": 16},
    "spec.tunnel": {"description": "How other nodes encapsulate packets to this one."},
    "spec.tunnel.protocol": {"description": "The encapsulation.", "enum": ["vxlan"]},
    "spec.tunnel.port": {"description": "UDP port.", "minimum": 0, "maximum": 65535},
    "spec.tunnel.vni": {"description": "VXLAN network identifier.", "minimum": 0, "maximum": 16777215},
    "spec.podMTU": {"description": "MTU of the pods' interfaces, in bytes.", "minimum": 0, "maximum": 65535},
    "spec.version": {"description": "The agent's version.", "maxLength": 64},
    "status": {"description": "How the node is."},
    **condition_annotations("The agent's readiness conditions, and Ready, which sums them up."),
    "status.podCount": {"description": "Pods of this node with an address of Fast.", "minimum": 0},
    "status.problemCount": {"description": "Number of problems, also of those not listed.", "minimum": 0},
    "status.problems": {
        "description": "What the node's checks found, as fast-ctl doctor prints it.",
        "maxItems": MOST_PROBLEMS,
        "x-kubernetes-list-type": "atomic",
    },
    "status.problems[]": {"description": "One problem."},
    "status.problems[].check": {"description": "The check that found it.", "maxLength": 64},
    "status.problems[].severity": {
        "description": "error keeps pods from working, warning may.",
        "enum": ["error", "warning"],
    },
    "status.problems[].problem": {"description": "What is wrong.", "maxLength": 4096},
    "status.problems[].remedy": {"description": "What to do about it.", "maxLength": 4096},
}

COLUMNS: list[dict[str, Any]] = [
    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
    {"name": "Address", "type": "string", "jsonPath": ".spec.addresses[0]"},
    {"name": "Pods", "type": "integer", "jsonPath": ".status.podCount"},
    {"name": "Version", "type": "string", "jsonPath": ".spec.version"},
    {"name": "Problems", "type": "integer", "jsonPath": ".status.problemCount"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Routing", "type": "string", "jsonPath": ".spec.routing", "priority": 1},
    {
        "name": "Problem",
        "type": "string",
        "jsonPath": ".status.problems[0].problem",
        "priority": 1,
    },
]
