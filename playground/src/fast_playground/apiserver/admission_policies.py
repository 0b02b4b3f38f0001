"""ValidatingAdmissionPolicies: which of them a write meets, and whether their CEL expressions allow it. No storage.

Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/. A policy that needs what
is not here (parameters, ``authorizer``) is refused when it is created, so that no policy is stored and not enforced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import cel

from fast_playground.apiserver.api import Object, Options
from fast_playground.apiserver.kinds import ADMISSION_POLICIES, ADMISSION_POLICY_BINDINGS, GVR, NAMESPACES
from fast_playground.apiserver.metadata import validate_label_selector
from fast_playground.apiserver.registry import Kind, Registry
from fast_playground.apiserver.rules import CEL_ERRORS, FUNCTIONS, compile_expression
from fast_playground.apiserver.selectors import from_object
from fast_playground.apiserver.status import (
    ApiError,
    FieldError,
    forbidden,
    invalid_value,
    required,
    unsupported,
)
from fast_playground.apiserver.storage import Record

_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_ACTIONS = ("Audit", "Deny", "Warn")
_FAILURE_POLICIES = ("Fail", "Ignore")


@dataclass(frozen=True)
class Attempt:
    """A write that policies judge.

    Attributes:
        kind: The kind of the object that is written.
        operation: ``CREATE``, ``UPDATE`` or ``DELETE``.
        name: The object's name.
        namespace: Its namespace; None for cluster-scoped kinds.
        subresource: As ``status``; empty for the object itself.
        new: What the object will be; None for a deletion.
        old: What it was; None for a creation.
        options: Who writes, and whether only to try.
    """

    kind: Kind
    operation: str
    name: str
    namespace: str | None
    subresource: str
    new: Object | None
    old: Object | None
    options: Options

    def request(self) -> Object:
        """The variable ``request``: an AdmissionRequest without the objects."""
        gvr, user = self.kind.gvr, self.options.user
        kind = {"group": gvr.group, "version": gvr.version, "kind": self.kind.kind}
        resource = {"group": gvr.group, "version": gvr.version, "resource": gvr.resource}
        info: Object = {"username": user.name, "groups": list(user.groups)}
        if user.extra:
            info["extra"] = {key: list(values) for key, values in user.extra.items()}
        return {
            "kind": kind,
            "requestKind": kind,
            "resource": resource,
            "requestResource": resource,
            "subResource": self.subresource,
            "requestSubResource": self.subresource,
            "name": self.name,
            "namespace": self.namespace or "",
            "operation": self.operation,
            "userInfo": info,
            "dryRun": self.options.dry_run,
        }


class _Validation(NamedTuple):
    program: cel.Program
    expression: str
    message: str
    message_program: cel.Program | None
    reason: str


class Policy:
    """One policy, compiled.

    Args:
        obj: The ValidatingAdmissionPolicy.

    Raises:
        ValueError: An expression is not CEL.
    """

    def __init__(self, obj: Object) -> None:
        spec = obj["spec"]
        self.name: str = obj["metadata"]["name"]
        self.constraints: Object = spec.get("matchConstraints") or {}
        self._fails = spec.get("failurePolicy", "Fail") == "Fail"
        self._conditions = [
            (c["name"], compile_expression(c["expression"])) for c in spec.get("matchConditions") or []
        ]
        self._variables = [
            (v["name"], compile_expression(v["expression"])) for v in spec.get("variables") or []
        ]
        self._validations = [
            _Validation(
                compile_expression(v["expression"]),
                v["expression"].strip(),
                v.get("message", ""),
                compile_expression(v["messageExpression"]) if v.get("messageExpression") else None,
                v.get("reason") or "Invalid",
            )
            for v in spec.get("validations") or []
        ]

    def refusals(self, known: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Evaluate the policy; gives reason and message of each validation that does not hold.

        Args:
            known: The variables ``object``, ``oldObject``, ``request`` and so on.
        """
        try:
            if not self._applies(known):
                return []
        except CEL_ERRORS as error:
            return [("Invalid", f"match condition failed: {error}")] if self._fails else []
        known = dict(known) | {"variables": self._evaluate_variables(known)}
        found = []
        for validation in self._validations:
            try:
                holds = _evaluate(validation.program, known)
            except CEL_ERRORS as error:
                if self._fails:
                    why = f"expression '{validation.expression}' resulted in error: {error}"
                    found.append(("Invalid", why))
                continue
            if holds is not True:
                found.append((validation.reason, _message(validation, known)))
        return found

    def _applies(self, known: Mapping[str, Any]) -> bool:
        """Whether every match condition holds. A false one counts more than errors of others."""
        error: Exception | None = None
        for _, program in self._conditions:
            try:
                if _evaluate(program, known) is not True:
                    return False
            except CEL_ERRORS as raised:
                error = raised
        if error is not None:
            raise error
        return True

    def _evaluate_variables(self, known: Mapping[str, Any]) -> Object:
        """Evaluate the variables in order. One that fails stays undefined, so that only its users fail."""
        made: Object = {}
        for name, program in self._variables:
            try:
                made[name] = _evaluate(program, dict(known) | {"variables": made})
            except CEL_ERRORS:
                continue
        return made


def _evaluate(program: cel.Program, known: Mapping[str, Any]) -> Any:
    return program.execute(cel.Context(variables=dict(known), functions=FUNCTIONS))


def _message(validation: _Validation, known: Mapping[str, Any]) -> str:
    if validation.message_program is not None:
        try:
            made = _evaluate(validation.message_program, known)
        except CEL_ERRORS:
            made = ""
        if isinstance(made, str) and made.strip() and "\n" not in made:
            return made
    return validation.message or f"failed expression: {validation.expression}"


class AdmissionPolicies:
    """The policies in force, compiled once for each of their versions.

    Args:
        records: Gives the committed objects of a cluster-scoped resource by name.
        registry: Tells in which versions a kind is served.
    """

    def __init__(self, records: Callable[[GVR], Mapping[str, Record]], registry: Registry) -> None:
        self._records = records
        self._registry = registry
        self._compiled: dict[str, tuple[int, Policy]] = {}

    def check(self, attempt: Attempt) -> None:
        """Refuse a write that a bound policy does not allow; warnings go into the attempt's options.

        Raises:
            ApiError: 401, 403, 413 or 422, as the validation's reason says.
        """
        bindings = self._records(ADMISSION_POLICY_BINDINGS)
        if not bindings or attempt.kind.gvr.group == ADMISSION_POLICIES.group:
            return  # as in Kubernetes, policies do not apply to policies: one could lock everybody out
        denied: list[tuple[str, str]] = []
        known: Object = {}
        for name, record in bindings.items():
            spec = record.decode()["spec"]
            policy = self._policy(spec["policyName"])
            if policy is None or not self._matches(policy.constraints, attempt):
                continue
            if "matchResources" in spec and not self._matches(spec["matchResources"], attempt, every=True):
                continue
            known = known or self._known(attempt)
            for reason, message in policy.refusals(known):
                actions = spec.get("validationActions") or ()
                head = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{name}' denied request: "
                if "Deny" in actions:
                    denied.append((reason, head + message))
                elif "Warn" in actions:
                    text = f"Validation failed for ValidatingAdmissionPolicy '{policy.name}' with binding '{name}': "
                    attempt.options.warnings.append(text + message)
        if denied:
            raise _refusal(attempt, denied)

    def _policy(self, name: str) -> Policy | None:
        record = self._records(ADMISSION_POLICIES).get(name)
        if record is None:
            return None
        if self._compiled.get(name, (0,))[0] != record.version:
            self._compiled[name] = record.version, Policy(record.decode())
        return self._compiled[name][1]

    def _known(self, attempt: Attempt) -> Object:
        known = {"object": attempt.new, "oldObject": attempt.old, "request": attempt.request()}
        return known | {"params": None, "namespaceObject": self._namespace(attempt)}

    def _namespace(self, attempt: Attempt) -> Object | None:
        """The namespace that is written, or that the object is in; None if there is none."""
        if attempt.kind.gvr == NAMESPACES:
            return attempt.new or attempt.old
        record = self._records(NAMESPACES).get(attempt.namespace or "")
        return record.decode() if record else None

    def _matches(self, resources: Object, attempt: Attempt, *, every: bool = False) -> bool:
        """Whether MatchResources fit; ``every``: without resource rules they fit every resource."""
        rules = resources.get("resourceRules") or []
        versions = {attempt.kind.gvr.version}
        if resources.get("matchPolicy", "Equivalent") == "Equivalent":
            versions |= {k.gvr.version for k in self._registry if k.storage == attempt.kind.storage}
        if not (every and not rules) and not any(_rule_fits(rule, attempt, versions) for rule in rules):
            return False
        excluded = resources.get("excludeResourceRules") or []
        if any(_rule_fits(rule, attempt, versions) for rule in excluded):
            return False
        objects = [obj for obj in (attempt.new, attempt.old) if obj is not None]
        if not any(_fits(resources.get("objectSelector"), obj) for obj in objects):
            return False
        namespace = self._namespace(attempt)  # the selector says nothing about other cluster-scoped objects
        return namespace is None or _fits(resources.get("namespaceSelector"), namespace)


def _fits(selector: Object | None, obj: Object) -> bool:
    return from_object(selector).matches(obj["metadata"].get("labels") or {})


def _rule_fits(rule: Object, attempt: Attempt, versions: set[str]) -> bool:
    gvr, sub = attempt.kind.gvr, attempt.subresource
    full = f"{gvr.resource}/{sub}" if sub else gvr.resource
    resources = {"*/*", full} | ({f"{gvr.resource}/*", f"*/{sub}"} if sub else {"*", f"{gvr.resource}/*"})
    scope = "Namespaced" if attempt.kind.namespaced else "Cluster"
    names = rule.get("resourceNames")
    return bool(
        {"*", gvr.group} & set(rule.get("apiGroups") or ())
        and ({"*"} | versions) & set(rule.get("apiVersions") or ())
        and {"*", attempt.operation} & set(rule.get("operations") or ())
        and resources & set(rule.get("resources") or ())
        and rule.get("scope", "*") in ("*", scope)
        and (not names or attempt.name in names)
    )


def _refusal(attempt: Attempt, denied: list[tuple[str, str]]) -> ApiError:
    reason, message = denied[0]
    error = forbidden(attempt.kind.gvr, attempt.name, message)
    error.reason, error.code = reason, _CODES[reason]
    assert error.details is not None
    error.details["causes"] = [{"message": text} for _, text in denied]
    return error


def validate_policy(obj: Object, _old: Object | None) -> list[FieldError]:
    """Find what is wrong with a ValidatingAdmissionPolicy, or what of it cannot be enforced here."""
    spec = obj["spec"]
    errors = _validate_match(spec.get("matchConstraints"), "spec.matchConstraints", rules_needed=True)
    if spec.get("paramKind"):
        errors.append(invalid_value("spec.paramKind", "object", "this server has no policy parameters"))
    if spec["failurePolicy"] not in _FAILURE_POLICIES:
        errors.append(unsupported("spec.failurePolicy", spec["failurePolicy"], _FAILURE_POLICIES))
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        errors.append(
            required("spec.validations", "validations or auditAnnotations must contain at least one item")
        )
    for group, field in (("matchConditions", "expression"), ("variables", "expression")):
        for index, item in enumerate(spec.get(group) or []):
            errors += _validate_expression(item[field], f"spec.{group}[{index}].{field}")
    for index, item in enumerate(spec.get("validations") or []):
        path = f"spec.validations[{index}]"
        errors += _validate_expression(item["expression"], f"{path}.expression")
        if item.get("messageExpression"):
            errors += _validate_expression(item["messageExpression"], f"{path}.messageExpression")
        if (reason := item.get("reason") or "Invalid") not in _CODES:
            errors.append(unsupported(f"{path}.reason", reason, sorted(_CODES)))
    return errors


def _validate_expression(text: str, path: str) -> list[FieldError]:
    if not text.strip():
        return [required(path, "expression is not specified")]
    try:
        program = compile_expression(text)
    except ValueError as error:
        return [invalid_value(path, text, f"compilation failed: {error}")]
    if "authorizer" in program.variables():
        return [invalid_value(path, text, "this server has no authorizer for policies")]
    return []


def _validate_match(resources: Object | None, path: str, *, rules_needed: bool) -> list[FieldError]:
    if resources is None:
        return [required(path)] if rules_needed else []
    errors = []
    if rules_needed and not resources.get("resourceRules"):
        errors.append(required(f"{path}.resourceRules"))
    for name in ("namespaceSelector", "objectSelector"):
        errors += validate_label_selector(resources.get(name) or {}, f"{path}.{name}")
    for group in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(resources.get(group) or []):
            where = f"{path}.{group}[{index}]"
            for field in ("apiGroups", "apiVersions", "operations", "resources"):
                if not rule.get(field):
                    errors.append(required(f"{where}.{field}"))
            wrong = [name for name in rule.get("operations") or [] if name not in _OPERATIONS]
            errors += [unsupported(f"{where}.operations", name, _OPERATIONS) for name in wrong]
    return errors


def validate_binding(obj: Object, _old: Object | None) -> list[FieldError]:
    """Find what is wrong with a ValidatingAdmissionPolicyBinding."""
    spec = obj["spec"]
    errors = _validate_match(spec.get("matchResources"), "spec.matchResources", rules_needed=False)
    if not spec.get("policyName"):
        errors.append(required("spec.policyName"))
    if spec.get("paramRef"):
        errors.append(invalid_value("spec.paramRef", "object", "this server has no policy parameters"))
    actions = spec.get("validationActions") or []
    if not actions:
        errors.append(required("spec.validationActions"))
    errors += [unsupported("spec.validationActions", a, _ACTIONS) for a in actions if a not in _ACTIONS]
    if {"Deny", "Warn"} <= set(actions):
        why = "must not contain both Deny and Warn (repeating the same validation failure information in the response)"
        errors.append(invalid_value("spec.validationActions", actions, why))
    return errors
