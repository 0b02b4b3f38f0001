"""Which address the node has: found at the agent's start, and followed when it changes under a running agent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address

import structlog

from fast.agent.config.agent_config import AgentConfig
from fast.api.core import Node
from fast.api.resources import NODES
from fast.datapath.node.tunnel import find_node_ip6, has_address
from fast.errors import DatapathError, KubeError
from fast.kube import KubeClient

log = structlog.get_logger()

VARIABLE = "FAST_NODE_IP"
_RETRY_SECONDS = 2.0


async def ask_node_ip(client: KubeClient, node_name: str, stop: asyncio.Event) -> IPv4Address | None:
    """Ask the API server for the node's first IPv4 InternalIP until it answers; None if told to stop."""
    while not stop.is_set():
        try:
            found = _ipv4(await client.get(NODES, node_name))
            if found:
                return found[0]
            reason = f"Node {node_name} has no IPv4 InternalIP yet"
        except KubeError as error:
            reason = str(error)
        log.warning("the node's address is not known yet; --node-ip would say it", reason=reason)
        try:
            async with asyncio.timeout(_RETRY_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue
    return None


def look_for_ipv6(node_ip: IPv4Address) -> IPv6Address | None:
    """Find the IPv6 address beside ``node_ip``, as Node objects often list only IPv4; None if there is none yet."""
    try:
        return find_node_ip6(node_ip)
    except DatapathError as error:
        log.warning("the node's IPv6 address is not known; --node-ip6 sets it", reason=str(error))
        return None


class AddressWatch:
    """Notices that the node moved to another address: by DHCP, or by an administrator.

    It did if the Node object listed the agent's address but no longer does, and no device has it any more. An address
    that the Node object never listed, such as one of a NIC for storage, is left to the administrator.
    """

    def __init__(
        self,
        node_ip: IPv4Address,
        node_name: str,
        nodes: Mapping[str, Node],
        *,
        is_here: Callable[[IPv4Address], bool] = has_address,
    ) -> None:
        """Prepare.

        Args:
            node_ip: The address that the agent works with.
            node_name: The node.
            nodes: The Node objects as seen now.
            is_here: Whether a device of this node has an address. Blocking.
        """
        self._node_ip = node_ip
        self._node_name = node_name
        self._nodes = nodes
        self._is_here = is_here
        self._was_listed = False

    async def wait(self, interval_seconds: float = _RETRY_SECONDS) -> IPv4Address:
        """Wait until the node has moved; gives its new address."""
        while True:
            try:
                moved = await self.look()
            except DatapathError as error:
                log.debug("the node's addresses cannot be read", error=str(error))
                moved = None
            if moved is not None:
                return moved
            await asyncio.sleep(interval_seconds)

    async def look(self) -> IPv4Address | None:
        """Look once: the new address, or None if the node has not moved.

        Raises:
            DatapathError: The kernel cannot be asked.
        """
        node = self._nodes.get(self._node_name)
        listed = _ipv4(node) if node is not None else []
        if self._node_ip in listed:
            self._was_listed = True
            return None
        if not self._was_listed or not listed or await asyncio.to_thread(self._is_here, self._node_ip):
            return None
        for address in listed:
            if await asyncio.to_thread(self._is_here, address):
                return address
        return None


def may_follow(config: AgentConfig) -> bool:
    """Tell whether the node's address was not fixed by a flag or a file: only then can a restart change it."""
    return config.node_ip is None or os.environ.get(VARIABLE) == str(config.node_ip)


def prepare_restart(moved: IPv4Address) -> None:
    """Give the node's new address to the process that starts next."""
    os.environ[VARIABLE] = str(moved)


def _ipv4(node: Node) -> list[IPv4Address]:
    found = []
    for text in node.internal_ips:
        try:
            found.append(IPv4Address(text))
        except ValueError:
            continue
    return found
