"""Which programs make up a playground, their command lines and where they are found. Starts nothing."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from fast.cni.plugin_binary import find_plugin
from fast_playground.cluster.directory import Settings, StateDirectory
from fast_playground.cluster.node import Node
from fast_playground.cluster.underlay import OUTSIDE, second_address

API_SERVER, CONTROLLER, AGENT, KUBELET = "apiserver", "controller", "agent", "kubelet"
AGENT_KUBECONFIG = "/etc/fast/agent.kubeconfig"
KUBELET_KUBECONFIG = "/etc/kubernetes/kubelet.kubeconfig"


def api_server_command(directory: StateDirectory) -> list[str]:
    """Return the API server's command; it is passed the machine's and the underlay's listening socket."""
    enter = shlex.join([sys.executable, "-I", "-m", "fast_playground.cluster.enter", directory.name])
    return [
        _script("fast-apiserver"),
        *("--data-dir", str(directory.api_data)),
        *("--listen-fd", "{fd1}", "--listen-fd", "{fd2}"),
        *("--tls-san", str(OUTSIDE)),
        *("--exec-command", enter),
    ]


def controller_command() -> list[str]:
    """Return the controller's command; its kubeconfig comes by KUBECONFIG."""
    return [_script("fast-controller-manager")]


def agent_command(settings: Settings) -> list[str]:
    """Return an agent's command; it finds everything at the default paths."""
    return [_script("fast-agent"), *settings.agent_args]


def agent_environment(node: Node) -> dict[str, str]:
    """Return the variables that a DaemonSet would set."""
    return {
        "NODE_NAME": node.name,
        "KUBECONFIG": AGENT_KUBECONFIG,
        "FAST_INSTALL_PLUGIN": str(find_plugin()),
        "FAST_NODE_IP": str(node.address),
    }


def kubelet_command(node: Node, settings: Settings) -> list[str]:
    """Return the command of a node's kubelet; its kubeconfig comes by KUBECONFIG."""
    second = ["--address", str(second_address(node.number))] if settings.two_addresses else []
    return [
        sys.executable,
        "-I",
        "-m",
        "fast_playground.cluster.kubelet",
        "--node",
        node.name,
        "--address",
        str(node.address),
        *second,
    ]


def _script(name: str) -> str:
    """Return the path of a program of this installation."""
    return str(Path(sys.executable).parent / name)
