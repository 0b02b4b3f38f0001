"""Identities at a playground's API server: a token and a kubeconfig for people and for each program. No rights here.

Rights come from the Roles of ``rbac.py``, and for kubelets from the group ``system:nodes``.
"""

from __future__ import annotations

from pathlib import Path

from fast_playground.apiserver.access import Authority, TokenStore, write_kubeconfig
from fast_playground.cluster.directory import StateDirectory
from fast_playground.cluster.fast_roles import AGENT, CONTROLLER, NAMESPACE


class Identities:
    """Writes the kubeconfigs of one playground.

    Args:
        directory: The playground's.
        host_server: URL of the API server from the machine.
        node_server: URL of the API server from the nodes.
    """

    def __init__(self, directory: StateDirectory, host_server: str, node_server: str) -> None:
        self._directory = directory
        self._host_server = host_server
        self._node_server = node_server
        self._tokens = TokenStore(directory.api_data / "tokens.json")
        self._ca_pem = Authority(directory.api_data / "pki").ca_pem

    def write_admin(self) -> None:
        """Write the kubeconfig for people, who may do everything."""
        token = self._tokens.ensure_identity("admin", ["system:masters"])
        self._write(self._directory.kubeconfig, self._host_server, "admin", token)

    def write_controller(self) -> Path:
        """Write the controller's kubeconfig, for its ServiceAccount; return its path."""
        path = self._directory.path / f"{CONTROLLER}.kubeconfig"
        token = self._tokens.ensure_service_account(NAMESPACE, CONTROLLER)
        self._write(path, self._node_server, CONTROLLER, token)
        return path

    def write_agent(self, node: str, path: Path) -> None:
        """Write the kubeconfig of a node's agent, as the agents' ServiceAccount, with its own token."""
        token = self._tokens.ensure_service_account(NAMESPACE, AGENT, node=node)
        self._write(path, self._node_server, AGENT, token)

    def write_kubelet(self, node: str, path: Path) -> None:
        """Write the kubeconfig of a node's kubelet."""
        token = self._tokens.ensure_identity(f"system:node:{node}", ["system:nodes"])
        self._write(path, self._node_server, f"system:node:{node}", token)

    def _write(self, path: Path, server: str, user: str, token: str) -> None:
        write_kubeconfig(path, server=server, ca_pem=self._ca_pem, user=user, token=token)
