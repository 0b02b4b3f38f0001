"""The admission policy that keeps an agent to the records of its own node, its expressions evaluated for real."""

import functools

import pytest

from unit.deploy.admission import verdict as answer

verdict = functools.partial(answer, "fast-agent-own-records")


def record(node="n1", container="c1", sticky=""):
    spec = {"pool": "p", "node": node, "containerID": container, "stickyKey": sticky}
    return {"spec": {key: value for key, value in spec.items() if value}}


def retained():
    return record(node="", container="", sticky="uid/0")


@pytest.mark.parametrize(
    ("operation", "new", "old"),
    [
        pytest.param("CREATE", record(), None, id="claims"),
        pytest.param(
            "UPDATE", record(container="c2"), record(), id="takes over for a new sandbox of the pod"
        ),
        pytest.param("UPDATE", retained(), record(sticky="uid/0"), id="keeps for a StatefulSet"),
        pytest.param("UPDATE", record(sticky="uid/0"), retained(), id="takes what was kept"),
        pytest.param("UPDATE", retained(), record(sticky="uid/0"), id="gives it back"),
        pytest.param("DELETE", None, record(), id="releases"),
    ],
)
def test_an_agent_does_with_its_own_nodes_addresses_what_it_needs_to(operation, new, old):
    assert verdict(operation, new, old) == ""


@pytest.mark.parametrize(
    ("operation", "new", "old"),
    [
        pytest.param("CREATE", record(node="n2"), None, id="claims for another"),
        pytest.param("CREATE", retained(), None, id="claims for none"),
        pytest.param("UPDATE", record(), record(node="n2"), id="takes from another"),
        pytest.param("UPDATE", record(node="n2"), record(), id="gives to another"),
        pytest.param("UPDATE", retained(), record(node="n2", sticky="uid/0"), id="cuts another's pod off"),
        pytest.param("DELETE", None, record(node="n2"), id="releases another's"),
        pytest.param("DELETE", None, retained(), id="releases what is kept"),
        pytest.param(
            "UPDATE", record(node="", container="", sticky="other/0"), retained(), id="keeps it for another"
        ),
        pytest.param("UPDATE", retained(), retained(), id="rewrites what is kept"),
        pytest.param("UPDATE", retained(), record(sticky="other/0"), id="keeps its own for another"),
        pytest.param("UPDATE", retained(), record(), id="keeps its own for one that it was not for"),
        pytest.param("CREATE", record() | {"metadata": {"finalizers": ["a/b"]}}, None, id="adds a finalizer"),
        pytest.param(
            "UPDATE", record() | {"metadata": {"finalizers": ["a/b"]}}, record(), id="adds a finalizer later"
        ),
    ],
)
def test_an_agent_is_refused_other_nodes_addresses(operation, new, old):
    assert verdict(operation, new, old).startswith("an agent may")


def test_a_token_without_a_nodes_name_is_refused():
    assert verdict("CREATE", record(), node="") == "the agent's token does not say on which node it runs"


def test_others_are_left_to_their_rights():
    assert (
        verdict(
            "DELETE",
            None,
            record(node="n2"),
            user="system:serviceaccount:fast-system:fast-controller-manager",
        )
        == ""
    )
