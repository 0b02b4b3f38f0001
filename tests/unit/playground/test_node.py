"""A node of a playground, as a place where commands are run."""

import pytest

from fast_playground.cluster.directory import StateDirectory
from fast_playground.cluster.node import Place


@pytest.fixture
def directory():
    return StateDirectory("unit")


def test_the_playgrounds_kubeconfig_is_not_named_on_a_node_which_has_no_such_file(directory, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(directory.kubeconfig))
    assert "KUBECONFIG" not in Place(directory, "n1").environment()


def test_a_kubeconfig_that_somebody_chose_is_left_to_commands_on_a_node(directory, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/etc/fast/agent.kubeconfig")
    assert Place(directory, "n1").environment()["KUBECONFIG"] == "/etc/fast/agent.kubeconfig"
