"""The admission policy that keeps an agent to its own FastNode and Lease, its expressions evaluated for real."""

import functools

import pytest

from unit.deploy.admission import verdict as answer
from unit.deploy.manifests import kustomized, rendered

POLICY = "fast-agent-own-node"
verdict = functools.partial(answer, POLICY)


def named(name):
    return {"metadata": {"name": name}}


def changes(name):
    """A creation, a change and a deletion of the object."""
    return (
        ("CREATE", named(name), None),
        ("UPDATE", named(name), named(name)),
        ("DELETE", None, named(name)),
    )


@pytest.mark.parametrize(("resource", "own"), [("fastnodes", "n1"), ("leases", "fast-node-n1")])
def test_an_agent_writes_its_own_nodes_objects(resource, own):
    for operation, new, old in changes(own):
        assert verdict(operation, new, old, resource=resource) == ""


@pytest.mark.parametrize(
    ("resource", "other"),
    [
        ("fastnodes", "n2"),
        ("fastnodes", "n10"),
        ("fastnodes", "fast-node-n1"),
        ("leases", "fast-node-n2"),
        ("leases", "n1"),
        ("leases", "fast-controller-manager"),
    ],
)
def test_an_agent_is_refused_every_other_object(resource, other):
    for operation, new, old in changes(other):
        assert verdict(operation, new, old, resource=resource).startswith("an agent may write only")


@pytest.mark.parametrize("resource", ["fastnodes", "leases"])
def test_a_token_without_a_nodes_name_is_refused(resource):
    refusal = verdict("CREATE", named("n1"), resource=resource, node="")
    assert refusal == "the agent's token does not say on which node it runs"


def test_others_are_left_to_their_rights():
    controller = "system:serviceaccount:fast-system:fast-controller-manager"
    assert verdict("DELETE", None, named("n2"), resource="fastnodes", user=controller) == ""


def test_every_write_that_an_agent_has_a_right_to_is_covered_by_a_policy():
    documents = kustomized()
    covered = {
        (group, resource, operation)
        for document in documents.values()
        if document["kind"] == "ValidatingAdmissionPolicy"
        for rule in document["spec"]["matchConstraints"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for operation in rule["operations"]
    }
    operations = {"create": "CREATE", "update": "UPDATE", "patch": "UPDATE", "delete": "DELETE"}
    granted = {
        (group, resource, operations[verb])
        for kind in ("ClusterRole", "Role")
        for rule in documents[f"{kind}/fast-agent"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb in operations and resource != "events"
    }
    assert granted
    assert granted <= covered


def test_every_policy_is_bound_to_deny_and_fails_closed():
    for documents in (kustomized(), rendered()):
        policies = [one for one in documents.values() if one["kind"] == "ValidatingAdmissionPolicy"]
        assert len(policies) >= 2
        for policy in policies:
            name = policy["metadata"]["name"]
            assert policy["spec"]["failurePolicy"] == "Fail"
            binding = documents[f"ValidatingAdmissionPolicyBinding/{name}"]["spec"]
            assert binding == {"policyName": name, "validationActions": ["Deny"]}
