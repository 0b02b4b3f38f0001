"""Compares what a playground's records, pods, sandboxes, namespaces and eBPF maps say of addresses. Asserts nothing.

Looks from outside at each, so that it depends on nothing that the programs under test compute themselves.
"""

import re
from collections import Counter

from e2e.running import Running

_ADDRESSES = (
    "for n in /run/netns/cni-*; do nsenter --net=$n ip -o addr show scope global 2>/dev/null; done; true"
)
_ADDRESS = re.compile(r"inet6? ([0-9a-f.:]+)/(?:32|128) ")


def disagreements(cluster: Running) -> list[str]:
    """Say in sentences where they differ; nothing where they agree exactly."""
    pods = {
        item["metadata"]["uid"]: item
        for item in cluster.items("pods", "-A")
        if item["status"].get("phase") not in ("Succeeded", "Failed")
    }
    records = {item["metadata"]["name"]: item["spec"] for item in cluster.items("ipendpoints")}
    found = [f"pod {name(pod)} is not ready" for pod in pods.values() if not ready(pod)]
    bound = {address: spec for address, spec in records.items() if spec.get("containerID")}
    found += [
        f"{address} belongs to {spec['pod']['name']} of UID {spec['pod']['uid']}, which is gone"
        for address, spec in bound.items()
        if spec["pod"]["uid"] not in pods
    ]
    of_pods = {address: name(pod) for pod in pods.values() for address in addresses_of(pod)}
    of_records = {address: spec["pod"]["name"] for address, spec in bound.items()}
    found += differences("records", of_records, "pods", of_pods)
    found += _sandboxes(cluster, bound)
    underlays = {node.name: str(node.address) for node in cluster.playground.nodes()}
    for node in cluster.playground.nodes():
        here = {address for address, spec in bound.items() if spec["node"] == node.name}
        in_map = {row["ip"] for row in cluster.ctl(node.name, "local-ips", "list")}
        in_namespaces = Counter(_ADDRESS.findall(node.run("sh", "-c", _ADDRESSES).stdout))
        found += differences(f"records of {node.name}", dict.fromkeys(here), "its map", dict.fromkeys(in_map))
        found += differences(
            f"records of {node.name}", dict.fromkeys(here, 1), "its namespaces", dict(in_namespaces)
        )
        known = {
            row["ip"]: row["nodeIP"]
            for row in cluster.ctl(node.name, "cluster-ips", "list")
            if row["kind"] == "pod"
        }
        should = {address: underlays[spec["node"]] for address, spec in bound.items()}
        found += differences("records", should, f"the cluster's map on {node.name}", known)
    return found


def _sandboxes(cluster: Running, bound: dict[str, dict]) -> list[str]:
    """Compare records with what the kubelets hold, by container ID."""
    of_sandboxes = {
        address: placed.sandbox.container_id
        for placed in cluster.playground.sandboxes()
        for address in placed.sandbox.ips
    }
    of_records = {address: spec["containerID"] for address, spec in bound.items()}
    return differences("records", of_records, "sandboxes", of_sandboxes)


def twice_given(cluster: Running) -> list[str]:
    """Addresses that two live sandboxes have at this moment: what must never be."""
    roots = {node.name: node.path("/") for node in cluster.playground.nodes()}
    alive = Counter(
        address
        for placed in cluster.playground.sandboxes()
        if placed.sandbox.netns and (roots[placed.node.name] / placed.sandbox.netns.lstrip("/")).exists()
        for address in placed.sandbox.ips
    )
    return [address for address, count in alive.items() if count > 1]


def differences(one: str, ours: dict, other: str, theirs: dict) -> list[str]:
    """Say how two mappings by address differ."""
    return [
        f"{address}: {one} say {ours.get(address, 'nothing')}, {other} {theirs.get(address, 'nothing')}"
        for address in sorted(ours.keys() | theirs.keys())
        if (address in ours, ours.get(address)) != (address in theirs, theirs.get(address))
    ]


def name(pod: dict) -> str:
    """Its name."""
    return pod["metadata"]["name"]


def ready(pod: dict) -> bool:
    """Whether it is Ready and to stay."""
    conditions = {item["type"]: item["status"] for item in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def addresses_of(pod: dict) -> list[str]:
    """What its status says."""
    return [item["ip"] for item in pod["status"].get("podIPs", ())]
