"""Attaching the program: every hook, an upgrade without a gap, and nothing left behind."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from fast.datapath.bpf import DATAPATH, Config, PinDirectory, install
from fast.datapath.bpf.spec import AFTER_NAT
from fast.datapath.policy.after_nat import PolicyLinks, load_policy
from kernel.lab import Machine

CONFIG = Config(node_ip=IPv4Address("192.168.0.1"))
HOOKS = {"ipv4-local_in", "ipv4-postrouting", "ipv6-local_in", "ipv6-postrouting"}


@pytest.fixture
def machine():
    made = Machine("policy-links")
    yield made
    made.close()


PINS = PinDirectory(Path("/sys/fs/bpf/fast"))  # of the machine


def attached() -> set[str]:
    return {path.name for path in PINS.netfilter.iterdir()}


def test_an_upgrade_takes_the_other_priority_and_then_removes_the_earlier_link(machine):
    def start():
        install(DATAPATH.configured(CONFIG).sized(fast_flow_table=1024), PINS).close()
        links = PolicyLinks(PINS)
        with load_policy(PINS, CONFIG) as loaded:
            program = loaded.programs[AFTER_NAT]
            before = links.missing(program)
            links.attach(program)
            assert links.missing(program) == []
            links.attach(program)
        return set(before), attached()

    first_missing, first = machine.call(start)
    second_missing, second = machine.call(start)
    assert first_missing == second_missing == HOOKS
    assert {name.rsplit("-", 1)[0] for name in first} == HOOKS
    assert {name.rsplit("-", 1)[0] for name in second} == HOOKS
    assert not first & second
    _, third = machine.call(start)
    assert third == first
    machine.call(PolicyLinks(PINS).detach)
    assert machine.call(attached) == set()
