"""NetworkPolicies: their defaults and rules, as kube-apiserver applies them."""

from __future__ import annotations

import re
from typing import Any

from fast_playground.apiserver.api import Object
from fast_playground.apiserver.metadata import validate_label_selector
from fast_playground.apiserver.rules import parse_cidr
from fast_playground.apiserver.status import (
    FieldError,
    forbidden_field,
    invalid_value,
    required,
    unsupported,
)

_MAX_PORT, _MAX_PORT_NAME = 65535, 15
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_TYPES = ("Egress", "Ingress")
_RULE_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_RULE_PORT = f"must be between 1 and {_MAX_PORT}, inclusive"
#: What a port's name must not match, with Kubernetes' words for it. Source: apimachinery's IsValidPortName.
_PORT_NAME_RULES = [
    (rf".{{{_MAX_PORT_NAME + 1}}}", f"must be no more than {_MAX_PORT_NAME} characters"),
    (r"^$|[^-a-z0-9]", "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"),
    (r"^[^a-z]*$", "must contain at least one letter (a-z)"),
    (r"--", "must not contain consecutive hyphens"),
    (r"^-|-$", "must not begin or end with a hyphen"),
]


def default(obj: Object) -> None:
    """Fill in, in place, what depends on other fields: the policy types follow from the rules there are."""
    spec = obj.get("spec")
    if isinstance(spec, dict) and not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def validate(obj: Object, _old: Object | None) -> list[FieldError]:
    """Find what is wrong with a NetworkPolicy."""
    spec = obj.get("spec") or {}
    errors = validate_label_selector(spec.get("podSelector") or {}, "spec.podSelector")
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or []):
            path = f"spec.{direction}[{index}]"
            for number, port in enumerate(rule.get("ports") or []):
                errors += _validate_port(port, f"{path}.ports[{number}]")
            for number, peer in enumerate(rule.get(side) or []):
                errors += _validate_peer(peer, f"{path}.{side}[{number}]")
    types = spec.get("policyTypes") or []
    if len(types) > len(_TYPES):
        errors.append(invalid_value("spec.policyTypes", types, "may not specify more than two policyTypes"))
    else:
        errors += [unsupported("spec.policyTypes", t, _TYPES) for t in types if t not in _TYPES]
    return errors


def _validate_port(port: Object, path: str) -> list[FieldError]:
    errors = []
    if port["protocol"] not in _PROTOCOLS:
        errors.append(unsupported(f"{path}.protocol", port["protocol"], _PROTOCOLS))
    first, last = port.get("port"), port.get("endPort")
    if isinstance(first, str):
        if last is not None:
            why = "may not be specified when `port` is non-numeric"
            errors.append(invalid_value(f"{path}.endPort", last, why))
        broken = [why for pattern, why in _PORT_NAME_RULES if re.search(pattern, first)]
        return errors + [invalid_value(f"{path}.port", first, why) for why in broken]
    if first is None:
        if last is not None:
            why = "may not be specified when `port` is not specified"
            errors.append(invalid_value(f"{path}.endPort", last, why))
        return errors
    if not 0 < first <= _MAX_PORT:
        errors.append(invalid_value(f"{path}.port", first, _RULE_PORT))
    if last is not None:
        if last < first:
            errors.append(invalid_value(f"{path}.endPort", first, "must be greater than or equal to `port`"))
        if not 0 < last <= _MAX_PORT:
            errors.append(invalid_value(f"{path}.endPort", last, _RULE_PORT))
    return errors


def _validate_peer(peer: Object, path: str) -> list[FieldError]:
    selectors = [name for name in ("podSelector", "namespaceSelector") if name in peer]
    errors: list[FieldError] = []
    for name in selectors:
        errors += validate_label_selector(peer[name], f"{path}.{name}")
    if "ipBlock" in peer:
        errors += _validate_block(peer["ipBlock"], f"{path}.ipBlock")
        if selectors:
            errors.append(forbidden_field(path, "may not specify both ipBlock and another peer"))
    elif not selectors:
        errors.append(required(path, "must specify a peer"))
    return errors


def _validate_block(block: Object, path: str) -> list[FieldError]:
    text = block.get("cidr", "")
    if not text:
        return [required(f"{path}.cidr")]
    outer = _network(text)
    if outer is None:
        return [invalid_value(f"{path}.cidr", text, _RULE_CIDR)]
    errors = []
    for index, except_ in enumerate(block.get("except") or []):
        where, inner = f"{path}.except[{index}]", _network(except_)
        if inner is None:
            errors.append(invalid_value(where, except_, _RULE_CIDR))
        elif inner == outer or inner.version != outer.version or not inner.subnet_of(outer):
            errors.append(invalid_value(where, except_, "must be a strict subset of `cidr`"))
    return errors


def _network(text: Any) -> Any:
    """The network of a CIDR whose host bits may be set; None if the text is not a CIDR."""
    try:
        return parse_cidr(text).network
    except ValueError:
        return None
