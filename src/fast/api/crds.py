"""The CustomResourceDefinitions: made from the types, with annotations for what a type cannot express.

``python -m fast.api.crds`` writes them to deploy/crds; a test holds the two equal.

CEL rules refuse what a schema cannot express. They use Kubernetes' ``ip`` and ``cidr`` libraries (1.31 and later), and
only functions whose result size the API server can estimate (``find``, not ``split``): if a rule might cost too much,
the API server refuses the whole definition. CEL cannot check reversed IPv6 ranges (IP values have no order in CEL),
overlap with another Ips, and exclusions that leave nothing: the controller's ``Ready`` condition reports those.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fast.api.fastnode_schema import COLUMNS as FASTNODE_COLUMNS
from fast.api.fastnode_schema import FASTNODE, condition_annotations
from fast.api.ips import GROUP
from fast.api.openapi import Annotations, Schema, object_schema
from fast.api.resources import FASTNODES, IPENDPOINTS, IPSES, Resource
from fast.net import SPECIAL_NETWORKS

#: The longest range: ``address-address``, IPv6 in full.
_LONGEST_RANGE = 79
_LONGEST_CIDR = 43
_MOST_RANGES = 1024
_LONGEST_NAME = 253
_LONGEST_LABEL = 63

_FIRST = 'self.find("^[^-]+")'
_LAST = 'self.find("[^-]+$")'
_IS_RANGE = f'self.matches("^[^-]+-[^-]+$") && isIP({_FIRST}) && isIP({_LAST})'


_NO_SPECIAL_NETWORK = " && ".join(
    f'!cidr(self).containsCIDR("{network}") && !cidr("{network}").containsCIDR(self)'
    for network in SPECIAL_NETWORKS
)


def _value(address: str) -> str:
    """CEL for the integer value of an IPv4 address."""
    parts = (
        f'int({address}.find("^[0-9]+")) * 16777216',
        f'int({address}.find("^[0-9]+[.][0-9]+").find("[0-9]+$")) * 65536',
        f'int({address}.find("[0-9]+[.][0-9]+$").find("^[0-9]+")) * 256',
        f'int({address}.find("[0-9]+$"))',
    )
    return " + ".join(parts)


def _range_rules() -> list[dict[str, str]]:
    """Rules for one item of ``ips`` and ``excludeIPs``. If an earlier rule fails, the later ones hold trivially."""
    return [
        {
            "rule": f"isIP(self) || isCIDR(self) || ({_IS_RANGE})",
            "message": "must be an address (10.0.0.1), a range with both ends included (10.0.0.1-10.0.0.9), or a CIDR",
        },
        {
            "rule": f"!({_IS_RANGE}) || ip({_FIRST}).family() == ip({_LAST}).family()",
            "message": "a range must not mix IPv4 and IPv6",
        },
        {
            "rule": f'!({_IS_RANGE}) || self.contains(":") || {_value(_FIRST)} <= {_value(_LAST)}',
            "message": "the range is reversed: the lower address comes first",
        },
    ]


def _inside_rule(field: str) -> dict[str, str]:
    """Every item of the list is inside the subnet. Holds trivially for items that their own rules refuse."""
    first, last, begin = 'e.find("^[^-]+")', 'e.find("[^-]+$")', 'e.find("^[^/]+")'
    subnet = "cidr(self.subnet)"
    inside = (
        f"isIP(e) ? {subnet}.containsIP(ip(e)) : isCIDR(e) ? {subnet}.containsIP(ip({begin})) "
        f"&& cidr(e).prefixLength() >= {subnet}.prefixLength() : !isIP({first}) || !isIP({last}) || "
        f"({subnet}.containsIP(ip({first})) && {subnet}.containsIP(ip({last})))"
    )
    return {
        "rule": f"!has(self.{field}) || !isCIDR(self.subnet) || self.{field}.all(e, {inside})",
        "message": f"{field} must be inside the subnet",
        "fieldPath": f".{field}",
    }


_TEXT = {"minLength": 1, "maxLength": _LONGEST_NAME}


def _selector(path: str, who: str) -> dict[str, dict[str, Any]]:
    return {
        path: {
            "description": f"Which {who} may use this pool; absent: all.",
            "x-kubernetes-map-type": "atomic",
        },
        f"{path}.matchLabels": {"description": "Labels the object must have."},
        f"{path}.matchExpressions": {
            "description": "Requirements the object's labels must meet.",
            "maxItems": 64,
            "x-kubernetes-list-type": "atomic",
        },
        f"{path}.matchExpressions[]": {"description": "One requirement."},
        f"{path}.matchExpressions[].key": {"description": "The label's key.", **_TEXT},
        f"{path}.matchExpressions[].operator": {
            "description": "How the label's value relates to values.",
            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
        },
        f"{path}.matchExpressions[].values": {
            "description": "For In and NotIn.",
            "x-kubernetes-list-type": "atomic",
        },
    }


_RANGE_ITEMS = {
    "minLength": 1,
    "maxLength": _LONGEST_RANGE,
    "x-kubernetes-validations": _range_rules(),
}

_IN_USE = "has(oldSelf.status) && has(oldSelf.status.allocatedIPCount) && oldSelf.status.allocatedIPCount > 0"
_CONTAINS = (
    "isCIDR(self.spec.subnet) && cidr(self.spec.subnet).containsCIDR(cidr(oldSelf.spec.subnet).masked())"
)
#: A transition rule: pods hold addresses of the subnet, and what the node sets up for pods follows the subnet.
_SUBNET_IN_USE = {
    "rule": f"self.spec.subnet == oldSelf.spec.subnet || !({_IN_USE}) || !isCIDR(oldSelf.spec.subnet) || ({_CONTAINS})",
    "message": "while addresses are in use, the subnet may only grow",
    "messageExpression": '"while addresses are in use, the subnet may only grow: " + '
    'string(oldSelf.status.allocatedIPCount) + " are held; kubectl get ipe --field-selector spec.pool=" + '
    'self.metadata.name + " lists them"',
}

_IPS: Annotations = {
    "": {"description": "Ips is a pool of pod addresses.", "x-kubernetes-validations": [_SUBNET_IN_USE]},
    "spec": {
        "description": "The pool as the user wrote it.",
        "x-kubernetes-validations": [_inside_rule("ips"), _inside_rule("excludeIPs")],
    },
    "spec.subnet": {
        "description": "The subnet in CIDR form; host bits are allowed, as in 10.244.0.1/16.",
        "minLength": 1,
        "maxLength": _LONGEST_CIDR,
        "x-kubernetes-validations": [
            {"rule": "isCIDR(self)", "message": "must be a subnet in CIDR form, such as 10.244.0.0/16"},
            {
                "rule": f"!isCIDR(self) || ({_NO_SPECIAL_NETWORK})",
                "message": "must not overlap this-host (0.0.0.0/8), loopback, link-local, multicast, broadcast "
                "or IPv4-mapped addresses: no pod can have one",
            },
        ],
    },
    "spec.ips": {
        "description": "The addresses to give out: addresses, ranges (both ends included) and CIDRs (first and last "
        "address included). Empty: the whole subnet without its network and broadcast address.",
        "maxItems": _MOST_RANGES,
        "x-kubernetes-list-type": "atomic",
    },
    "spec.ips[]": _RANGE_ITEMS,
    "spec.excludeIPs": {
        "description": "Addresses, ranges and CIDRs that are never given out.",
        "maxItems": _MOST_RANGES,
        "x-kubernetes-list-type": "atomic",
    },
    "spec.excludeIPs[]": _RANGE_ITEMS,
    **_selector("spec.podAffinity", "pods"),
    **_selector("spec.namespaceAffinity", "namespaces"),
    **_selector("spec.nodeAffinity", "nodes"),
    "spec.releaseDelaySeconds": {
        "description": "For how long a released address is not given out again.",
        "minimum": 0,
        "maximum": 86400,
    },
    "spec.retention": {"description": "Limits for addresses kept for sticky pods; absent: none."},
    "spec.retention.seconds": {
        "description": "For how long an address is kept after its pod is gone; 0: until its workload is gone.",
        "minimum": 0,
    },
    "spec.retention.maxPerNamespace": {
        "description": "How many addresses are kept for one namespace; 0: any number.",
        "minimum": 0,
    },
    "spec.retention.maxPerWorkload": {
        "description": "How many addresses are kept for one StatefulSet; 0: any number.",
        "minimum": 0,
    },
    "status": {"description": "What the controller counted; never the source of truth."},
    "status.totalIPCount": {"description": "Addresses in the pool, at most 2^63-1.", "minimum": 0},
    "status.allocatedIPCount": {"description": "Records of the pool, bound and retained.", "minimum": 0},
    "status.retainedIPCount": {
        "description": "Records of the pool that are kept for a sticky key.",
        "minimum": 0,
    },
    "status.freeIPCount": {"description": "Addresses without a record, at most 2^63-1.", "minimum": 0},
    **condition_annotations("Ready: addresses can be claimed. Exhausted: all are taken."),
}

_IPENDPOINT: Annotations = {
    "": {
        "description": "IpEndpoint is one address and who holds it; its name is the address. Creating it is the claim.",
        "x-kubernetes-validations": [
            {
                "rule": 'self.metadata.name.contains(".") ? isIP(self.metadata.name) : '
                'size(self.metadata.name) == 39 && isIP(self.metadata.name.replace("-", ":"))',
                "message": "the name must be the address: IPv4 as 10.244.10.0, IPv6 in full with - for :, "
                "as fd00-0000-0000-0000-0000-0000-0000-0001",
            }
        ],
    },
    "spec": {"description": "Who holds the address."},
    "spec.pool": {
        "description": "The Ips the address was taken from.",
        **_TEXT,
        "x-kubernetes-validations": [
            {
                "rule": "self == oldSelf",
                "message": "to change its pool, an address is released and claimed again",
            }
        ],
    },
    "spec.node": {
        "description": "The node that runs the pod.",
        "maxLength": _LONGEST_NAME,
    },
    "spec.pod": {"description": "The pod that holds the address."},
    "spec.pod.namespace": {"description": "The pod's namespace.", "maxLength": _LONGEST_LABEL},
    "spec.pod.name": {"description": "The pod's name.", "maxLength": _LONGEST_NAME},
    "spec.pod.uid": {"description": "The pod's UID, which identifies it.", "maxLength": 128},
    "spec.containerID": {
        "description": "The sandbox as the container runtime names it. Empty: the record is retained for "
        "stickyKey, without a sandbox.",
        "maxLength": 256,
    },
    "spec.interface": {"description": "The interface in the sandbox.", "maxLength": 15},
    "spec.bootID": {"description": "The node's boot in which the sandbox was made.", "maxLength": 64},
    "spec.retainedAt": {"description": "Since when it is retained (RFC 3339).", "maxLength": 64},
    "spec.stickyKey": {
        "description": "Who gets the address back: StatefulSet/namespace/name/ordinal, or "
        "Pod/namespace/name. Empty: nobody.",
        "maxLength": 512,
    },
    "spec.podLabels": {
        "description": "The pod's labels, kept up to date by its node's agent: policies on other nodes select by them.",
    },
    "spec.namedPorts": {
        "description": "The pod's ports that have a name.",
        "maxItems": 256,
        "x-kubernetes-list-type": "atomic",
    },
    "spec.namedPorts[].name": {"description": "The port's name.", "maxLength": 15},
    "spec.namedPorts[].port": {"description": "Its number.", "minimum": 1, "maximum": 65535},
    "spec.namedPorts[].protocol": {"description": "Its protocol.", "enum": ["TCP", "UDP", "SCTP"]},
}

_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def _column(name: str, path: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path, **more}


def ips_crd() -> dict[str, Any]:
    """Make the definition of Ips."""
    return _definition(
        IPSES,
        singular="ips",
        schema=object_schema(IPSES.type, _IPS),
        columns=[
            _column("Subnet", ".spec.subnet"),
            _column("Total", ".status.totalIPCount", "integer"),
            _column("Allocated", ".status.allocatedIPCount", "integer"),
            _column("Free", ".status.freeIPCount", "integer"),
            _column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            _column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
            _AGE,
        ],
        subresources={"status": {}},
    )


def ipendpoint_crd() -> dict[str, Any]:
    """Make the definition of IpEndpoint."""
    return _definition(
        IPENDPOINTS,
        singular="ipendpoint",
        short_names=["ipe"],
        schema=object_schema(IPENDPOINTS.type, _IPENDPOINT),
        columns=[
            _column("Pool", ".spec.pool"),
            _column("Pod", ".spec.pod.name"),
            _column("Node", ".spec.node"),
            _AGE,
            _column("Namespace", ".spec.pod.namespace", priority=1),
            _column("Container", ".spec.containerID", priority=1),
        ],
        selectable=[".spec.node", ".spec.pool"],
    )


def fastnode_crd() -> dict[str, Any]:
    """Make the definition of FastNode."""
    return _definition(
        FASTNODES,
        singular="fastnode",
        short_names=["fn"],
        schema=object_schema(FASTNODES.type, FASTNODE),
        columns=FASTNODE_COLUMNS,
        subresources={"status": {}},
    )


def _definition(
    resource: Resource[Any],
    *,
    singular: str,
    schema: Schema,
    columns: list[dict[str, Any]],
    short_names: list[str] | None = None,
    subresources: dict[str, Any] | None = None,
    selectable: list[str] | None = None,
) -> dict[str, Any]:
    version: dict[str, Any] = {"name": resource.version, "served": True, "storage": True}
    if subresources is not None:
        version["subresources"] = subresources
    if selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in selectable]
    version["additionalPrinterColumns"] = columns
    version["schema"] = {"openAPIV3Schema": schema}
    names: dict[str, Any] = {
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
        "plural": resource.plural,
        "singular": singular,
        "categories": ["fast"],
    }
    if short_names:
        names["shortNames"] = short_names
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "fast"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": names,
            "versions": [version],
        },
    }


def manifests() -> dict[str, dict[str, Any]]:
    """Make every definition, keyed by file name."""
    return {f"{crd['metadata']['name']}.yaml": crd for crd in (ips_crd(), ipendpoint_crd(), fastnode_crd())}


def to_yaml(manifest: dict[str, Any]) -> str:
    """Write a manifest as YAML, the same every time."""
    import yaml

    class Plain(yaml.SafeDumper):
        """No aliases, which people cannot read. Lists are indented as yamllint expects."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    head = "# Generated from the types: python -m fast.api.crds\n# yamllint disable rule:line-length\n"
    return head + yaml.dump(manifest, Dumper=Plain, sort_keys=False, width=110, allow_unicode=True)


def main(folder: Path) -> None:
    """Write every definition into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, manifest in manifests().items():
        (folder / name).write_text(to_yaml(manifest))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "deploy/crds"))
