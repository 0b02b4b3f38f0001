"""The status board: which nodes and pools are sound, and what is said of the others."""

from datetime import UTC, datetime

from fast.api.core import Lease, LeaseSpec, Node
from fast.api.fastnode import FastNode, FastNodeSpec, FastNodeStatus, NodeProblem
from fast.api.ips import Ips, IpsSpec, IpsStatus
from fast.api.meta import Condition, ObjectMeta
from fast.ctl.see.status_board import heard_seconds, node_rows, pool_rows


def fast_node(*problems, unmet=""):
    conditions = [Condition(type="datapath", status="False" if unmet else "True", reason="R", message=unmet)]
    return FastNode(
        metadata=ObjectMeta(name="n1"),
        spec=FastNodeSpec(addresses=("192.168.77.1",)),
        status=FastNodeStatus(
            conditions=conditions, pod_count=3, problem_count=len(problems), problems=[*problems]
        ),
    )


def row_of(found, heard):
    (row,) = node_rows([Node(metadata=ObjectMeta(name="n1"))], {"n1": found} if found else {}, heard)
    return row


def test_a_node_whose_agent_is_heard_and_names_no_problem_is_sound():
    row = row_of(fast_node(), {"n1": 4.0})
    assert (row["sound"], row["pods"], row["address"], row["problem"]) == (True, 3, "192.168.77.1", "")


def test_a_node_that_is_silent_says_so_whatever_it_said_last():
    row = row_of(fast_node(), {"n1": 90.0})
    assert (row["sound"], row["silent"]) == (False, True)
    assert "silent for 90 s" in row["problem"]
    assert row_of(fast_node(), {})["silent"]


def test_a_node_without_an_agent_is_said_to_have_none():
    row = row_of(None, {})
    assert (row["sound"], row["heardSecondsAgo"]) == (False, None)
    assert "no agent ever ran here" in row["problem"]


def test_a_readiness_condition_that_is_not_met_comes_before_problems():
    found = fast_node(NodeProblem("disk", "error", "disk is full", "free some"), unmet="the datapath is down")
    assert row_of(found, {"n1": 1.0})["problem"] == "the datapath is down"


def test_an_error_is_named_before_a_warning_and_only_errors_make_a_node_unsound():
    warning, error = (
        NodeProblem("a", "warning", "slow", "wait"),
        NodeProblem("b", "error", "disk is full", "free some"),
    )
    assert row_of(fast_node(warning, error), {"n1": 1.0})["problem"] == "disk is full. free some"
    assert not row_of(fast_node(warning, error), {"n1": 1.0})["sound"]
    assert row_of(fast_node(warning), {"n1": 1.0})["sound"]


def pool(**status):
    return Ips(
        metadata=ObjectMeta(name="p"),
        spec=IpsSpec(subnet="10.0.0.0/24", ips=["10.0.0.1"]),
        status=IpsStatus(**status),
    )


def test_a_pool_without_a_free_address_is_not_sound():
    (full,) = pool_rows([pool(total_ip_count=3, allocated_ip_count=3)])
    assert (full["sound"], full["problem"]) == (False, "no address is free: extend spec.ips")
    (fine,) = pool_rows([pool(total_ip_count=3, allocated_ip_count=2, free_ip_count=1)])
    assert (fine["sound"], fine["problem"]) == (True, "")


def test_a_pool_that_the_controller_refuses_says_why():
    unready = Condition(type="Ready", status="False", reason="Invalid", message="it overlaps pool q")
    (row,) = pool_rows([pool(total_ip_count=3, free_ip_count=3, conditions=[unready])])
    assert (row["sound"], row["problem"]) == (False, "it overlaps pool q")


def test_heartbeats_are_read_by_node_and_others_leases_are_left_out():
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)

    def lease(name, renewed):
        return Lease(metadata=ObjectMeta(name=name), spec=LeaseSpec(renew_time=renewed))

    leases = [
        lease("fast-node-n1", "2026-01-01T00:00:30.000000Z"),
        lease("fast-node-n2", ""),
        lease("fast-controller-manager", "2026-01-01T00:00:30.000000Z"),
    ]
    assert heard_seconds(leases, now) == {"n1": 30.0}
