"""ValidatingAdmissionPolicies are enforced: the shipped one, and everything that a policy may say."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from unit.apiserver.conftest import wait_until

_GROUP = "/apis/admissionregistration.k8s.io/v1"
_POLICIES, _BINDINGS = f"{_GROUP}/validatingadmissionpolicies", f"{_GROUP}/validatingadmissionpolicybindings"
_MAPS = "/api/v1/namespaces/default/configmaps"
_RECORDS = "/apis/sample.fast.io/v1alpha1/ipendpoints"
_ROLES = "/apis/rbac.authorization.k8s.io/v1"
_SHIPPED = Path(__file__).parents[3] / "deploy/base/agent-own-records.yaml"
_EVERY_MAP = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}


def _map(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def _policy(*validations, rules=(_EVERY_MAP,), **spec):
    made = {"matchConstraints": {"resourceRules": list(rules)} | spec.pop("constraints", {})}
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy"}
    return head | {"metadata": {"name": "tried"}, "spec": made | {"validations": list(validations)} | spec}


def _binding(*actions, **spec):
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding"}
    made = {"policyName": "tried", "validationActions": list(actions or ["Deny"])}
    return head | {"metadata": {"name": "bound"}, "spec": made | spec}


def _rule(expression, **more):
    return {"expression": expression} | more


@pytest.fixture
def enforced(client):
    """Enforces a policy on ConfigMaps until the test ends."""

    @contextmanager
    def enforce(policy, binding=None):
        for place, obj in ((_POLICIES, policy), (_BINDINGS, binding or _binding())):
            answer = client.post(place, obj)
            assert answer.status == 201, answer.body
        try:
            yield
        finally:
            client.delete(f"{_BINDINGS}/bound")
            client.delete(f"{_POLICIES}/tried")
            client.delete(_MAPS)

    return enforce


def test_a_refusal_names_policy_binding_and_message(client, enforced):
    with enforced(_policy(_rule("object.data.x == '1'", message="x must be 1"))):
        answer = client.post(_MAPS, _map("refused", x="2"))
        assert client.post(_MAPS, _map("fine", x="1")).status == 201
    why = "ValidatingAdmissionPolicy 'tried' with binding 'bound' denied request: x must be 1"
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert answer.body["message"] == f'configmaps "refused" is forbidden: {why}'
    assert answer.body["details"]["causes"] == [{"message": why}]
    assert client.get(f"{_MAPS}/refused").status == 404


@pytest.mark.parametrize(
    ("validation", "said"),
    [
        (_rule("false"), "failed expression: false"),
        (_rule("false", message="static"), "static"),
        (_rule("false", message="static", messageExpression="'x is ' + object.data.x"), "x is 2"),
        (_rule("false", message="static", messageExpression="object.data.missing"), "static"),
        (_rule("object.data.missing == 'a'"), "expression 'object.data.missing == 'a'' resulted in error: "),
    ],
)
def test_the_message_is_the_expressions_else_the_static_one_else_the_expression_itself(
    client, enforced, validation, said
):
    with enforced(_policy(validation)):
        message = client.post(_MAPS, _map("told", x="2")).body["message"]
    assert message.partition("denied request: ")[2].startswith(said)


@pytest.mark.parametrize(
    ("reason", "code"), [("Forbidden", 403), ("Unauthorized", 401), ("RequestEntityTooLarge", 413)]
)
def test_the_reason_of_a_validation_is_the_answers(client, enforced, reason, code):
    with enforced(_policy(_rule("false", reason=reason))):
        answer = client.post(_MAPS, _map("reasoned"))
    assert (answer.status, answer.reason) == (code, reason)


@pytest.mark.parametrize(
    ("operation", "write"),
    [
        ("CREATE", lambda client: client.post(_MAPS, _map("new"))),
        (
            "CREATE",
            lambda client: client.patch(f"{_MAPS}/new?fieldManager=t", _map("new"), "apply-patch+yaml"),
        ),
        ("UPDATE", lambda client: client.put(f"{_MAPS}/there", _map("there", x="2"))),
        ("UPDATE", lambda client: client.patch(f"{_MAPS}/there", {"data": {"x": "2"}})),
        ("DELETE", lambda client: client.delete(f"{_MAPS}/there")),
        ("DELETE", lambda client: client.delete(_MAPS)),
    ],
)
def test_every_way_to_write_meets_the_policy(client, enforced, operation, write):
    has_new, has_old = operation != "DELETE", operation != "CREATE"
    expected = f"request.operation == '{operation}' && (object != null) == {str(has_new).lower()}"
    expected += f" && (oldObject != null) == {str(has_old).lower()}"
    policy = _policy(
        _rule("false", messageExpression=f"{expected} ? 'as expected' : 'not so'"),
        rules=[_EVERY_MAP | {"operations": [operation]}],
    )
    client.post(_MAPS, _map("there", x="1"))
    with enforced(policy):
        answer = write(client)
        assert client.get(f"{_MAPS}/there").body["data"] == {"x": "1"}
    assert answer.body["message"].endswith("denied request: as expected")


def test_a_dry_run_is_judged_too_and_says_so(client, enforced):
    with enforced(_policy(_rule("!request.dryRun", message="only a try"))):
        assert client.post(f"{_MAPS}?dryRun=All", _map("dry")).status == 422
        assert client.post(_MAPS, _map("wet")).status == 201


def test_old_and_new_object_are_compared(client, enforced):
    rule = _EVERY_MAP | {"operations": ["UPDATE"]}
    with enforced(_policy(_rule("object.data.x == oldObject.data.x", message="x is fixed"), rules=[rule])):
        client.post(_MAPS, _map("kept", x="1"))
        assert client.patch(f"{_MAPS}/kept", {"data": {"y": "2"}}).status == 200
        assert client.patch(f"{_MAPS}/kept", {"data": {"x": "2"}}).status == 422


def test_variables_build_on_each_other_and_one_that_fails_hurts_only_its_users(client, enforced):
    variables = [
        {"name": "broken", "expression": "object.data.missing"},
        {"name": "x", "expression": "object.data.x"},
        {"name": "good", "expression": "variables.x == '1'"},
    ]
    with enforced(_policy(_rule("variables.good"), variables=variables)):
        assert client.post(_MAPS, _map("good", x="1")).status == 201
        assert client.post(_MAPS, _map("bad", x="2")).status == 422
    with enforced(_policy(_rule("variables.broken == '1'"), variables=variables)):
        assert client.post(_MAPS, _map("good", x="1")).status == 422


@pytest.mark.parametrize(
    ("conditions", "failure_policy", "status"),
    [
        (["true"], "Fail", 422),
        (["true", "false"], "Fail", 201),
        (["object.data.missing == ''"], "Fail", 422),
        (["object.data.missing == ''"], "Ignore", 201),
        (["object.data.missing == ''", "false"], "Fail", 201),
    ],
)
def test_match_conditions_choose_and_their_errors_follow_the_failure_policy(
    client, enforced, conditions, failure_policy, status
):
    named = [{"name": f"c{i}", "expression": text} for i, text in enumerate(conditions)]
    policy = _policy(_rule("false"), matchConditions=named, failurePolicy=failure_policy)
    with enforced(policy):
        assert client.post(_MAPS, _map("chosen")).status == status


def test_an_error_is_ignored_where_the_failure_policy_says_so(client, enforced):
    with enforced(_policy(_rule("object.data.missing == ''"), failurePolicy="Ignore")):
        assert client.post(_MAPS, _map("ignored")).status == 201


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, 422),
        ({"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}, 422),
        ({"resources": ["*/*"]}, 422),
        ({"apiGroups": ["apps"]}, 201),
        ({"apiVersions": ["v2"]}, 201),
        ({"operations": ["UPDATE"]}, 201),
        ({"resources": ["configmaps/status"]}, 201),
        ({"resourceNames": ["other"]}, 201),
        ({"resourceNames": ["matched"]}, 422),
        ({"scope": "Cluster"}, 201),
        ({"scope": "Namespaced"}, 422),
    ],
)
def test_a_rule_matches_by_group_version_operation_resource_name_and_scope(client, enforced, changed, status):
    with enforced(_policy(_rule("false"), rules=[_EVERY_MAP | changed])):
        assert client.post(_MAPS, _map("matched")).status == status


@pytest.mark.parametrize(
    ("constraints", "status"),
    [
        ({"excludeResourceRules": [_EVERY_MAP]}, 201),
        ({"objectSelector": {"matchLabels": {"a": "b"}}}, 201),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}, 422),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}, 201),
    ],
)
def test_constraints_exclude_and_select_by_labels(client, enforced, constraints, status):
    with enforced(_policy(_rule("false"), constraints=constraints)):
        assert client.post(_MAPS, _map("selected")).status == status


def test_a_binding_narrows_what_its_policy_matches(client, enforced):
    only = {"resourceRules": [_EVERY_MAP | {"resourceNames": ["bad"]}]}
    with enforced(_policy(_rule("false")), _binding(matchResources=only)):
        assert client.post(_MAPS, _map("good")).status == 201
        assert client.post(_MAPS, _map("bad")).status == 422


def test_a_binding_that_warns_lets_the_write_through_with_a_warning(client, enforced):
    with enforced(_policy(_rule("false", message="careful")), _binding("Warn")):
        answer = client.post(_MAPS, _map("warned"))
    assert answer.status == 201
    assert "policy 'tried' with binding 'bound': careful" in answer.headers["Warning"].replace(
        "ValidatingAdmissionPolicy", "policy"
    )


def test_a_binding_that_only_audits_and_a_policy_without_binding_refuse_nothing(client, enforced):
    with enforced(_policy(_rule("false")), _binding("Audit")):
        assert client.post(_MAPS, _map("audited")).status == 201
        client.delete(f"{_BINDINGS}/bound")
        assert client.post(_MAPS, _map("unbound")).status == 201


def test_a_changed_policy_counts_at_once(client, enforced):
    with enforced(_policy(_rule("false"))):
        patch = {"spec": {"validations": [_rule("true")]}}
        assert client.patch(f"{_POLICIES}/tried", patch).status == 200
        assert client.post(_MAPS, _map("allowed")).status == 201


def test_no_policy_is_about_policies(client, enforced):
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}
    with enforced(_policy(_rule("false"), rules=[everything])):
        assert client.post(_MAPS, _map("locked")).status == 422
        assert client.delete(f"{_BINDINGS}/bound").status == 200


def test_the_servers_own_controllers_are_judged_too(client, enforced):
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    template = {
        "metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    }
    replica_set = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "judged"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "a"}}, "template": template},
    }
    sets = "/apis/apps/v1/namespaces/default/replicasets"
    with enforced(_policy(_rule("false", message="no pods"), rules=[pods])):
        client.post(sets, replica_set)
        events = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=judged"
        wait_until(lambda: any("no pods" in e["message"] for e in client.get(events).body["items"]))
        client.delete(f"{sets}/judged")


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (_policy(_rule("1 +")), "spec.validations[0].expression"),
        (_policy(_rule("")), "spec.validations[0].expression"),
        (_policy(_rule("url('a').getHost() == 'b'")), "spec.validations[0].expression"),
        (_policy(_rule("authorizer.group('').check('get').allowed()")), "spec.validations[0].expression"),
        (_policy(_rule("true", messageExpression="'")), "spec.validations[0].messageExpression"),
        (_policy(_rule("true", reason="Whim")), "spec.validations[0].reason"),
        (_policy(), "spec.validations"),
        (_policy(_rule("true"), failurePolicy="Shrug"), "spec.failurePolicy"),
        (_policy(_rule("true"), rules=[]), "spec.matchConstraints.resourceRules"),
        (
            _policy(_rule("true"), rules=[_EVERY_MAP | {"operations": ["READ"]}]),
            "spec.matchConstraints.resourceRules[0].operations",
        ),
        (_policy(_rule("true"), paramKind={"apiVersion": "v1", "kind": "ConfigMap"}), "spec.paramKind"),
    ],
)
def test_a_policy_that_cannot_be_enforced_is_not_stored(client, policy, field):
    answer = client.post(_POLICIES, policy)
    assert answer.status == 422
    assert [cause["field"] for cause in answer.body["details"]["causes"]] == [field]


@pytest.mark.parametrize(
    ("binding", "field"),
    [
        (_binding("Deny", "Warn"), "spec.validationActions"),
        (_binding("Shout"), "spec.validationActions"),
        (_binding(policyName=""), "spec.policyName"),
        (_binding(paramRef={"name": "a"}), "spec.paramRef"),
    ],
)
def test_a_binding_that_makes_no_sense_is_refused(client, binding, field):
    answer = client.post(_BINDINGS, binding)
    assert [cause["field"] for cause in answer.body["details"]["causes"]] == [field]


@pytest.fixture
def agents(server, client):
    """The shipped policy in force, and clients with the tokens of the agents of n1, of n2, and of no node."""
    account = {"kind": "ServiceAccount", "namespace": "fast-system", "name": "fast-agent"}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "records"}}
    rules = [{"apiGroups": ["sample.fast.io"], "resources": ["ipendpoints"], "verbs": ["*"]}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "records"}
    shipped = list(yaml.safe_load_all(_SHIPPED.read_text()))
    made = [
        (f"{_ROLES}/clusterroles", role | {"kind": "ClusterRole", "rules": rules}),
        (
            f"{_ROLES}/clusterrolebindings",
            role | {"kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [account]},
        ),
        (_POLICIES, shipped[0]),
        (_BINDINGS, shipped[1]),
    ]
    for place, obj in made:
        assert client.post(place, obj).status == 201
    tokens = [
        server.tokens.ensure_service_account("fast-system", "fast-agent", node=node)
        for node in ("n1", "n2", "")
    ]
    clients = [server.client(token) for token in tokens]
    wait_until(lambda: clients[0].get(_RECORDS).status == 200)
    yield clients
    for one in clients:
        one.close()
    for place, obj in made:
        client.delete(f"{place}/{obj['metadata']['name']}")
    client.delete(_RECORDS)


def _record(node, address="10.9.9.9"):
    spec = {"pool": "p", "node": node, "nodeIP": "192.0.2.1", "containerID": "c", "podUID": "u"}
    spec |= {"ifName": "eth0", "podName": "a", "podNamespace": "default"}
    return {
        "apiVersion": "sample.fast.io/v1alpha1",
        "kind": "IpEndpoint",
        "metadata": {"name": address},
        "spec": spec,
    }


def test_an_agent_writes_the_records_of_its_own_node_only(agents):
    first, second, homeless = agents
    other = first.post(_RECORDS, _record("n2"))
    assert (other.status, other.reason) == (403, "Forbidden")
    assert "an agent may claim addresses only for its own node" in other.body["message"]
    created = first.post(_RECORDS, _record("n1"))
    assert created.status == 201, created.body
    refused = second.delete(f"{_RECORDS}/10.9.9.9")
    assert refused.status == 403
    assert "an agent may change and release only addresses of its own node" in refused.body["message"]
    assert "does not say on which node" in homeless.delete(f"{_RECORDS}/10.9.9.9").body["message"]
    assert first.delete(f"{_RECORDS}/10.9.9.9").status == 200
