"""The nftables rules by which a node translates Services, from Services and pods. Pure: nothing is run here.

It replaces kube-proxy: cluster addresses, node ports, random backends, and masquerade if a reply would miss the
node. It leaves out session affinity, external traffic policies, topology, and IPv6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from fast.api.meta import ObjectMeta
from fast.api.resources import Resource

TABLE = "playground_services"
_MARK = "0x4000"
#: Removes the table, if it exists.
NOTHING = f"table ip {TABLE} {{ }}\ndelete table ip {TABLE}\n"


class ServicePort(msgspec.Struct, rename="camel"):
    """``spec.ports[]``."""

    port: int
    target_port: int | str = 0
    protocol: str = "TCP"
    node_port: int = 0


class ServiceSpec(msgspec.Struct, rename="camel"):
    """``spec``."""

    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    selector: dict[str, str] = {}
    ports: list[ServicePort] = []


class Service(msgspec.Struct):
    """A Service, as a proxy sees it."""

    metadata: ObjectMeta
    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)


class NamedPort(msgspec.Struct, rename="camel"):
    """``containers[].ports[]``."""

    container_port: int
    name: str = ""


class PortedContainer(msgspec.Struct):
    """``spec.containers[]``."""

    ports: list[NamedPort] = []


class BackendSpec(msgspec.Struct):
    """``spec``."""

    containers: list[PortedContainer] = []


class PodCondition(msgspec.Struct):
    """``status.conditions[]``."""

    type: str
    status: str


class BackendStatus(msgspec.Struct, rename="camel"):
    """``status``."""

    pod_ip: str | None = msgspec.field(name="podIP", default=None)
    conditions: list[PodCondition] | None = None


class Backend(msgspec.Struct):
    """A Pod, as a proxy sees it."""

    metadata: ObjectMeta
    spec: BackendSpec = msgspec.field(default_factory=BackendSpec)
    status: BackendStatus = msgspec.field(default_factory=BackendStatus)

    @property
    def ready(self) -> bool:
        """Whether it receives traffic."""
        conditions = self.status.conditions or []
        holds = any(item.type == "Ready" and item.status == "True" for item in conditions)
        return holds and bool(self.status.pod_ip) and self.metadata.deletion_timestamp is None

    def port(self, target: int | str) -> int:
        """The number of a port by number or name; 0 if no container has it."""
        if isinstance(target, int):
            return target
        ports = (port for container in self.spec.containers for port in container.ports)
        return next((port.container_port for port in ports if port.name == target), 0)


SERVICES = Resource("", "v1", "services", "Service", True, Service)
BACKENDS = Resource("", "v1", "pods", "Pod", True, Backend)


def render(services: Iterable[Service], pods: Iterable[Backend]) -> str:
    """Write the nftables script that replaces the whole table.

    Args:
        services: All of the cluster; those without an IPv4 cluster address or a selector are left out.
        pods: All of the cluster.
    """
    ready = [pod for pod in pods if pod.ready]
    translated: list[str] = []
    refused: list[str] = []
    chains: list[str] = []
    for service in sorted(services, key=lambda item: item.metadata.key):
        if "." not in service.spec.cluster_ip or not service.spec.selector:
            continue
        chosen = [pod for pod in ready if _selects(service, pod.metadata)]
        for port in service.spec.ports:
            name, protocol = f"svc_{len(chains)}", port.protocol.lower()
            ends = [(str(pod.status.pod_ip), pod.port(port.target_port or port.port)) for pod in chosen]
            ends = [(address, number) for address, number in ends if number and "." in address]
            match = f"ip daddr {service.spec.cluster_ip} {protocol} dport {port.port}"
            if not ends:
                refused.append(f"{match} reject{' with tcp reset' if protocol == 'tcp' else ''}")
                continue
            translated.append(f"{match} goto {name}")
            chains += _chains(name, protocol, ends)
            if port.node_port:
                outside = f"fib daddr type local {protocol} dport {port.node_port}"
                translated.append(f"{outside} meta mark set meta mark or {_MARK} goto {name}")
    return _script(translated, refused, chains) if translated or refused else NOTHING


def _selects(service: Service, pod: ObjectMeta) -> bool:
    labels: Mapping[str, str] = pod.labels
    wanted = service.spec.selector.items()
    return service.metadata.namespace == pod.namespace and all(
        labels.get(key) == value for key, value in wanted
    )


def _chains(name: str, protocol: str, ends: list[tuple[str, int]]) -> list[str]:
    """Return a chain that chooses an end, and a chain for each end. A pod that reaches itself is masqueraded."""
    choices = ", ".join(f"{index} : goto {name}_{index}" for index in range(len(ends)))
    found = [f"chain {name} {{ numgen random mod {len(ends)} vmap {{ {choices} }}; }}"]
    for index, (address, port) in enumerate(ends):
        hairpin = f"ip saddr {address} meta mark set meta mark or {_MARK}"
        translate = f"meta l4proto {protocol} dnat to {address}:{port}"
        found.append(f"chain {name}_{index} {{ {hairpin}; {translate}; }}")
    return found


def _script(translated: list[str], refused: list[str], chains: list[str]) -> str:
    hooks = [
        "chain prerouting { type nat hook prerouting priority -100; jump services; }",
        "chain output { type nat hook output priority -100; jump services; }",
        f"chain postrouting {{ type nat hook postrouting priority 100; meta mark and {_MARK} != 0 masquerade; }}",
        "chain forward { type filter hook forward priority -10; jump refused; }",
        "chain local { type filter hook output priority -10; jump refused; }",
        f"chain services {{ {'; '.join(translated)}{';' if translated else ''} }}",
        f"chain refused {{ {'; '.join(refused)}{';' if refused else ''} }}",
    ]
    body = "\n".join([*chains, *hooks])
    return f"{NOTHING}table ip {TABLE} {{\n{body}\n}}\n"
