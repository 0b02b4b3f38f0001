"""CEL rules of CustomResourceDefinitions (``x-kubernetes-validations``), evaluated by the ``cel`` library.

Source: https://kubernetes.io/docs/reference/using-api/cel/. The library knows the standard language and strings; what
else Kubernetes adds and Fast's own rules use (lists, IP addresses and CIDRs, patterns) is defined here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

import cel
from cel.stdlib import EXTENSIONS

from fast_playground.apiserver.status import FieldError, quote

#: What evaluating an expression may raise.
CEL_ERRORS = (ValueError, TypeError, LookupError, RuntimeError)
_OLD_SELF = re.compile(r"\boldSelf\b")
#: Matches a ``$`` as a group, or skips an escape or character class in which it is literal.
_DOLLAR = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(\$)", re.DOTALL)
_REASONS = {"FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"}


def _is(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _parse_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address as Kubernetes does: no zone, no IPv4 in IPv6."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise ValueError(f"{text!r} is no IP address")
    return address


def parse_cidr(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    """Read a network with its prefix length; ValueError if it is none."""
    if not re.search(r"/\d+$", text):
        raise ValueError(f"{text!r} is no CIDR")
    return ipaddress.ip_interface(text)


def _ip(text: str) -> str:
    return str(_parse_ip(text))


def _cidr(text: str) -> str:
    return str(parse_cidr(text))


def _contains_ip(cidr: str, address: str) -> bool:
    return _parse_ip(address) in parse_cidr(cidr).network


def _contains_cidr(outer: str, inner: str) -> bool:
    network, other = parse_cidr(outer).network, parse_cidr(inner).network
    return network.version == other.version and other.subnet_of(network)  # type: ignore[arg-type]


def _family(text: str) -> int:
    return ipaddress.ip_interface(text).version


def _masked(cidr: str) -> str:
    return str(parse_cidr(cidr).network)


def _find(text: str, pattern: str) -> str:
    match = compile_pattern(pattern).search(text)
    return match[0] if match else ""


def compile_pattern(pattern: str) -> re.Pattern[str]:
    r"""Compile a pattern that means what it does to Go: ``$`` is the text's end, not also before a last ``\n``.

    Raises:
        ValueError: It is no pattern.
    """
    try:
        return re.compile(_DOLLAR.sub(lambda match: match[0] if match[1] is None else r"\Z", pattern))
    except re.error as error:
        raise ValueError(f"{pattern!r} is no pattern: {error}") from error


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **EXTENSIONS["strings"],
    "isIP": _is(_parse_ip),
    "ip": _ip,
    "family": _family,
    "isCIDR": _is(parse_cidr),
    "cidr": _cidr,
    "containsIP": _contains_ip,
    "containsCIDR": _contains_cidr,
    "prefixLength": lambda cidr: parse_cidr(cidr).network.prefixlen,
    "masked": _masked,
    "find": _find,
    "findAll": lambda text, pattern: [match[0] for match in compile_pattern(pattern).finditer(text)],
    "isSorted": lambda items: list(items) == sorted(items),
}


#: What the library knows by itself.
_STANDARD = {
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
}
_STANDARD |= {
    "duration",
    "timestamp",
    "type",
    "dyn",
    "getFullYear",
    "getMonth",
    "getDayOfMonth",
    "getDayOfWeek",
}
_STANDARD |= {"getDayOfYear", "getDate", "getHours", "getMinutes", "getSeconds", "getMilliseconds"}


def compile_expression(text: str) -> cel.Program:
    """Compile a CEL expression. Raises ValueError: it is not CEL, or calls a function that does not exist here."""
    program = cel.compile(text)
    called = {name for name in program.functions() if name[0].isalpha()}
    if unknown := sorted(called - _STANDARD - set(FUNCTIONS)):
        raise ValueError(f"undeclared reference to '{unknown[0]}'")
    return program


class Rule:
    """One rule, compiled.

    Args:
        spec: An item of ``x-kubernetes-validations``.

    Raises:
        ValueError: The expression does not compile.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._text: str = spec["rule"]
        self._message: str = spec.get("message", "")
        self._expression = (
            compile_expression(spec["messageExpression"]) if spec.get("messageExpression") else None
        )
        self._field_path: str = spec.get("fieldPath", "")
        reason = spec.get("reason", "FieldValueInvalid")
        self._reason = reason if reason in _REASONS else "FieldValueInvalid"
        self._transition = bool(_OLD_SELF.search(self._text)) and not spec.get("optionalOldSelf")
        self._program = compile_expression(self._text)

    def check(self, value: Any, path: str, old: Any) -> FieldError | None:
        """Evaluate the rule against a value; None if it holds.

        Args:
            value: ``self``.
            path: Its path, for the answer.
            old: ``oldSelf``; rules about transitions are skipped if it is None.
        """
        if self._transition and old is None:
            return None
        variables = {"self": value} if old is None else {"self": value, "oldSelf": old}
        context = cel.Context(variables=variables, functions=FUNCTIONS)
        try:
            holds = self._program.execute(context)
        except CEL_ERRORS as error:
            return self._error(value, path, f"rule evaluation error: {error}")
        return None if holds is True else self._error(value, path, self._explain(context))

    def _explain(self, context: cel.Context) -> str:
        if self._expression is not None:
            try:
                made = self._expression.execute(context)
            except CEL_ERRORS:
                made = ""
            if isinstance(made, str) and made.strip():
                return made
        return self._message or f"failed rule: {self._text}"

    def _error(self, value: Any, path: str, why: str) -> FieldError:
        shown = quote("object" if isinstance(value, dict) else "array" if isinstance(value, list) else value)
        where = path + self._field_path if self._field_path else path
        if self._reason == "FieldValueRequired":
            return FieldError(self._reason, where, f"Required value: {why}")
        if self._reason == "FieldValueForbidden":
            return FieldError(self._reason, where, f"Forbidden: {why}")
        return FieldError(self._reason, where, f"Invalid value: {shown}: {why}")
