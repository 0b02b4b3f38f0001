"""Checks the endpoints of this node: CNI CHECK as the agent serves it, and the MTUs. Changes nothing; blocking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fast.cni.agent_client import call_agent
from fast.cni.cni_errors import Code
from fast.cni.frames import CniCall
from fast.cni.network_config import NEWEST_VERSION
from fast.cni.plugin_binary import PLUGIN
from fast.datapath.netlink import Link, Netlink
from fast.datapath.netns import Netns
from fast.datapath.node.tunnel import TUNNEL_DEVICE
from fast.datapath.pod.identity import Endpoint, endpoint_of
from fast.errors import DatapathError, FastError

NETNS_DIRECTORY = Path("/run/netns")
_CALL_SECONDS = 10.0
_INSIDE = ("in the pod", "the pod has", "the pod's")
_PREFIX = "endpoint "


@dataclass(frozen=True, slots=True)
class CheckedEndpoint:
    """An endpoint and what is wrong with it.

    Attributes:
        endpoint: As its host device says.
        problems: Sentences; empty if it is sound.
        unknown: Why it could not be checked; empty if it was.
    """

    endpoint: Endpoint
    problems: tuple[str, ...] = ()
    unknown: str = ""

    @property
    def remedy(self) -> str:
        """What to do about the problems."""
        if not self.problems:
            return ""
        if any(text.startswith(_INSIDE) or f" {_INSIDE[0]}" in text for text in self.problems):
            return (
                "delete the pod: Fast does not repair inside a pod, and its successor is wired from the start"
            )
        return "the agent repairs it within seconds; if it stays, see the agent's log"


def find_endpoints() -> list[Endpoint]:
    """Return this node's endpoints, as their host devices say."""
    with Netlink() as host:
        return [found for link in host.links("veth") if (found := endpoint_of(link)) is not None]


def check_endpoints(endpoints: Sequence[Endpoint], socket: Path) -> Iterator[CheckedEndpoint]:
    """Check each endpoint; none keeps the others from being checked.

    Args:
        endpoints: Of this node.
        socket: The agent's.
    """
    with _sandboxes(endpoints) as sandboxes:
        for endpoint in endpoints:
            netns = sandboxes.get(endpoint.host_device)
            if netns is None:
                yield CheckedEndpoint(
                    endpoint, unknown=f"its network namespace is not below {NETNS_DIRECTORY}"
                )
                continue
            try:
                problems = (*_ask_agent(endpoint, netns, socket), *_wrong_mtus(endpoint, netns))
            except (FastError, OSError) as error:
                yield CheckedEndpoint(endpoint, unknown=f"the agent cannot be asked: {error}")
            else:
                yield CheckedEndpoint(endpoint, problems)


@contextmanager
def _sandboxes(endpoints: Sequence[Endpoint]) -> Iterator[Mapping[str, Netns]]:
    """Find the namespace of each endpoint by the MAC of its other end; by host device."""
    wanted = {str(endpoint.pod_mac): endpoint for endpoint in endpoints}
    found: dict[str, Netns] = {}
    with ExitStack() as stack:
        for path in sorted(NETNS_DIRECTORY.iterdir()) if NETNS_DIRECTORY.is_dir() else ():
            try:
                netns = Netns.open(str(path))
            except DatapathError:
                continue  # a file that is left of a namespace
            stack.callback(netns.close)
            for link in _links(netns):
                endpoint = wanted.get(str(link.mac))
                if endpoint is not None:
                    found.setdefault(endpoint.host_device, netns)
        yield found


def _links(netns: Netns) -> list[Link]:
    with Netlink(netns.fd) as inside:
        return inside.links("veth")


def _ask_agent(endpoint: Endpoint, netns: Netns, socket: Path) -> list[str]:
    """Make the CNI call CHECK for what the endpoint's device says of itself.

    Raises:
        OSError: The agent is away or does not answer.
        FastError: It cannot check now.
    """
    sandbox = f"/proc/self/fd/{netns.fd}"  # only a name: the agent gets the descriptor
    previous = {
        "cniVersion": NEWEST_VERSION,
        "interfaces": [{"name": endpoint.ifname, "sandbox": sandbox}],
        "ips": [{"address": f"{item}/{item.max_prefixlen}", "interface": 0} for item in endpoint.addresses],
    }
    config = {"cniVersion": NEWEST_VERSION, "name": "fast", "type": PLUGIN, "prevResult": previous}
    if endpoint.via_stack:
        config["runtimeConfig"] = {"bandwidth": {}}
    env = {
        "CNI_COMMAND": "CHECK",
        "CNI_CONTAINERID": endpoint.container_id,
        "CNI_IFNAME": endpoint.ifname,
        "CNI_NETNS": sandbox,
    }
    call = CniCall(env, msgspec.json.encode(config))
    reply = call_agent(socket, call, seconds=_CALL_SECONDS, netns_fd=netns.fd)
    if reply.exit_code == 0:
        return []
    answer = msgspec.json.decode(reply.stdout, type=dict)
    if answer.get("code") != Code.CHECK_FAILED:
        raise FastError(str(answer.get("msg")))
    text = str(answer.get("msg")).removeprefix(f"{_PREFIX}{endpoint.container_id}/{endpoint.ifname}: ")
    return text.split("; ")


def _wrong_mtus(endpoint: Endpoint, netns: Netns) -> Iterator[str]:
    inside = next((link for link in _links(netns) if link.mac == endpoint.pod_mac), None)
    if inside is not None and inside.mtu > endpoint.mtu:
        yield (
            f"the pod's MTU is {inside.mtu} bytes, the host's side has {endpoint.mtu}: larger packets are lost"
        )
    if inside is not None and inside.mtu < endpoint.mtu:
        yield f"the pod's MTU is {inside.mtu} bytes, but {endpoint.mtu} would do: it was changed"
    with Netlink() as host:
        tunnel = host.find_link(TUNNEL_DEVICE)
    if tunnel is not None and endpoint.mtu > tunnel.mtu:
        yield (
            f"{endpoint.host_device} has an MTU of {endpoint.mtu} bytes, the tunnel only {tunnel.mtu}: "
            "the underlay's MTU shrank since the pod started"
        )
