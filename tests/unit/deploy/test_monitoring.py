"""The optional monitoring: it fits the base, and the dashboard asks for nothing that is not exported."""

import json
import re

import kubernetes_validate
import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry

import fast.agent.app.agent  # noqa: F401 -- registers the agent's metrics
from fast.agent.node.packet_metrics import PacketCollector
from fast.ipam import IpamMetrics
from unit.deploy.manifests import ROOT, kustomized, overlaid

DOCS = ROOT / "docs"
MONITORING = ROOT / "deploy" / "extras" / "monitoring"
DASHBOARD = json.loads((MONITORING / "fast.json").read_text())
OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../base]
components: [../extras/monitoring]
"""
#: What the ServiceMonitors and Prometheus' histograms add to a metric's own labels.
ADDED_LABELS = {"node", "le"}


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """The base with the component, as an overlay beside both would have them."""
    return overlaid(tmp_path_factory.mktemp("deploy"), OVERLAY)


def exported():
    """Every metric of Fast by the name that Prometheus stores, with its labels."""
    ipam = CollectorRegistry()
    IpamMetrics(ipam)
    found = {}
    for registry in (REGISTRY, ipam):
        for collector in list(registry._collector_to_names):
            labels = set(getattr(collector, "_labelnames", ()))
            found |= dict.fromkeys(registry._collector_to_names[collector], labels)
    for family in PacketCollector(dict, dict).collect():
        found[f"{family.name}_total"] = set(family._labelnames)
    return {name: labels for name, labels in found.items() if name.startswith("fast_")}


def expressions():
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def test_every_metric_of_the_dashboard_is_exported_with_the_labels_that_are_asked_for():
    known = exported()
    assert len(expressions()) > 15
    for expression in expressions():
        (name,) = re.findall(r"fast_\w+", expression)
        assert name in known, expression
        grouped = {label for group in re.findall(r"by \((.*?)\)", expression) for label in group.split(", ")}
        assert grouped <= known[name] | ADDED_LABELS, expression


def test_every_alert_asks_for_metrics_and_labels_that_are_exported():
    known = exported()
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]["groups"][0]["rules"]
    of_fast = [(name, rule) for rule in rules for name in re.findall(r"\bfast_\w+", rule["expr"])]
    assert len(of_fast) >= len(rules) - 1  # one asks whether agents answer at all
    for name, rule in of_fast:
        assert name in known, rule["alert"]
        shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert shown <= known[name] | ADDED_LABELS, rule["alert"]


def test_every_metric_is_documented_with_its_labels():
    text = (DOCS / "operate" / "metrics.md").read_text()
    documented = {
        name: set(filter(None, labels.split(",")))
        for name, labels in re.findall(r"^\| `(fast_\w+?)(?:\{([\w,]+)\})?` \|", text, re.MULTILINE)
    }
    known = exported()
    bases = {name for name in known if not re.search(r"_(created|bucket|count|sum)$", name)}
    #: of a counter, what Prometheus stores: the name with _total
    bases -= {name.removesuffix("_total") for name in bases if name.endswith("_total")}
    assert documented == {name: known[name] for name in bases}


def test_every_metric_is_on_the_dashboard():
    shown = {
        re.sub(r"_(total|bucket)$", "", name)
        for text in expressions()
        for name in re.findall(r"fast_\w+", text)
    }
    bases = {re.sub(r"_(total|created|bucket|count|sum)$", "", name) for name in exported()}
    assert shown == bases


def test_no_two_panels_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_component_adds_to_the_base_and_changes_nothing_but_the_address_of_the_metrics(documents):
    base = kustomized()
    added = {name for name in documents if name not in base}
    assert added == {
        "ConfigMap/fast-dashboard",
        "PrometheusRule/fast",
        "Service/fast-agent-metrics",
        "Service/fast-controller-manager-metrics",
        "ServiceMonitor/fast-agent",
        "ServiceMonitor/fast-controller-manager",
    }
    for name, port in (("DaemonSet/fast-agent", 9095), ("Deployment/fast-controller-manager", 9096)):
        container = documents[name]["spec"]["template"]["spec"]["containers"][0]
        assert container["args"].pop() == f"--http-address=0.0.0.0:{port}"
    assert {name: document for name, document in documents.items() if name in base} == base
    assert json.loads(documents["ConfigMap/fast-dashboard"]["data"]["fast.json"]) == DASHBOARD


def test_services_find_their_pods_and_monitors_their_services(documents):
    for name, owner in (("fast-agent", "DaemonSet"), ("fast-controller-manager", "Deployment")):
        service, monitor = documents[f"Service/{name}-metrics"], documents[f"ServiceMonitor/{name}"]
        labels = documents[f"{owner}/{name}"]["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert {item["port"] for item in monitor["spec"]["endpoints"]} == {"metrics"}
        assert [item["name"] for item in service["spec"]["ports"]] == ["metrics"]


def test_what_kubernetes_knows_of_it_is_valid(documents):
    for document in documents.values():
        # the others are the Prometheus Operator's
        if document["apiVersion"] != "monitoring.coreos.com/v1":
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
