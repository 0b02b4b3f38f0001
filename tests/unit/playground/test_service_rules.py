"""What a node's rules for Services say, for Services and pods of every kind."""

import msgspec
import pytest

from fast_playground.cluster.service_rules import NOTHING, Backend, Service, render


def service(name="web", **spec):
    spec = {"clusterIP": "10.96.0.7", "selector": {"app": "web"}, "ports": [{"port": 80}]} | spec
    return msgspec.convert({"metadata": {"name": name, "namespace": "default"}, "spec": spec}, Service)


def pod(address="10.244.0.5", ready="True", namespace="default", ports=(), **labels):
    return msgspec.convert(
        {
            "metadata": {"name": "p", "namespace": namespace, "labels": labels or {"app": "web"}},
            "spec": {"containers": [{"ports": list(ports)}]},
            "status": {"podIP": address, "conditions": [{"type": "Ready", "status": ready}]},
        },
        Backend,
    )


def test_without_services_there_is_no_table():
    assert render([], [pod()]) == NOTHING


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"clusterIP": ""}, {"selector": {}}])
def test_a_service_without_an_address_or_selector_is_left_out(spec):
    assert render([service(**spec)], [pod()]) == NOTHING


def test_each_ready_pod_is_a_backend():
    script = render([service()], [pod("10.244.0.5"), pod("10.244.0.6")])
    assert "ip daddr 10.96.0.7 tcp dport 80 goto svc_0" in script
    assert "numgen random mod 2" in script
    for address in ("10.244.0.5", "10.244.0.6"):
        assert f"dnat to {address}:80" in script


@pytest.mark.parametrize(
    "other",
    [pod(ready="False"), pod(address=None), pod(namespace="other"), pod(app="other"), pod(address="fd00::5")],
)
def test_a_service_that_no_pod_serves_is_refused(other):
    script = render([service()], [other])
    assert "ip daddr 10.96.0.7 tcp dport 80 reject" in script
    assert "dnat" not in script


def test_a_target_port_is_a_number_or_the_name_of_a_containers_port():
    named = pod(ports=[{"containerPort": 8080, "name": "http"}])
    assert "dnat to 10.244.0.5:8080" in render([service(ports=[{"port": 80, "targetPort": "http"}])], [named])
    assert "dnat to 10.244.0.5:9000" in render([service(ports=[{"port": 80, "targetPort": 9000}])], [named])
    assert "reject" in render([service(ports=[{"port": 80, "targetPort": "missing"}])], [named])


def test_services_never_share_a_chain():
    many = [service(f"s{number}", clusterIP=f"10.96.0.{number}") for number in range(5)]
    script = render(many, [pod("10.244.0.5"), pod("10.244.0.6")])
    chains = [line.split()[1] for line in script.splitlines() if line.startswith("chain ")]
    assert len(chains) == len(set(chains))
    assert all(
        script.count(f"goto {name};") == 1
        for name in chains
        if name.startswith("svc_") and name.count("_") == 1
    )


def test_a_node_ports_client_is_masqueraded():
    script = render([service(ports=[{"port": 80, "nodePort": 30080}])], [pod()])
    assert "fib daddr type local tcp dport 30080 meta mark set meta mark or 0x4000 goto svc_0" in script
