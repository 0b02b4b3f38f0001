"""What a kubelet writes into ``status`` of a Pod, derived from its sandbox. Pure: no I/O, no clock."""

from __future__ import annotations

from typing import Any

from fast_playground.cluster.pod_types import Container, Pod
from fast_playground.cluster.sandbox import Sandbox

Json = dict[str, Any]


def waiting_status(pod: Pod, host_ip: str, now: str) -> Json:
    """Return the status of a pod that has no sandbox yet.

    Args:
        pod: Which.
        host_ip: The node's address.
        now: RFC 3339.
    """
    containers = [
        _container(item, {"waiting": {"reason": "ContainerCreating"}}, ready=False, restarts=0)
        for item in pod.spec.containers
    ]
    return _status(pod, "Pending", host_ip, now, (), containers)


def sandbox_status(pod: Pod, sandbox: Sandbox, exits: dict[str, int], host_ip: str, now: str) -> Json:
    """Return the status of a pod that has its sandbox.

    Args:
        pod: Which.
        sandbox: Its sandbox.
        exits: Exit status of each container that has ended and is not started again.
        host_ip: The node's address.
        now: RFC 3339.
    """
    containers = []
    for item in pod.spec.containers:
        process = sandbox.processes.get(item.name)
        restarts = sandbox.restarts.get(item.name, 0)
        if item.name in exits:
            state: Json = {
                "terminated": _terminated(exits[item.name], process.started_at if process else now, now)
            }
        elif process is not None:
            state = {"running": {"startedAt": process.started_at}}
        else:
            state = {"waiting": {"reason": "CrashLoopBackOff"}}
        status = _container(item, state, ready="running" in state, restarts=restarts)
        status["containerID"] = f"playground://{sandbox.container_id}-{item.name}"
        containers.append(status)
    ips = (host_ip,) if pod.spec.host_network else sandbox.ips
    return _status(pod, _phase(pod, exits), host_ip, now, ips, containers)


def _phase(pod: Pod, exits: dict[str, int]) -> str:
    if len(exits) < len(pod.spec.containers) or not exits:
        return "Running"
    return "Failed" if any(exits.values()) else "Succeeded"


def _status(
    pod: Pod, phase: str, host_ip: str, now: str, ips: tuple[str, ...], containers: list[Json]
) -> Json:
    ready = bool(ips) and all(item["ready"] for item in containers)
    finished = phase in ("Succeeded", "Failed")
    unready = {"reason": "PodCompleted" if finished else "ContainersNotReady"}
    conditions = [
        _condition("PodReadyToStartContainers", bool(ips) and not finished, now),
        _condition("Initialized", True, now),
        _condition("Ready", ready, now) | ({} if ready else unready),
        _condition("ContainersReady", ready, now) | ({} if ready else unready),
        _condition("PodScheduled", True, now),
    ]
    return {
        "phase": phase,
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "podIP": ips[0] if ips else None,
        "podIPs": [{"ip": ip} for ip in ips] or None,
        "startTime": pod.status.start_time or now,
        "conditions": conditions,
        "containerStatuses": containers,
        "qosClass": "BestEffort",
    }


def _condition(kind: str, holds: bool, now: str) -> Json:
    return {"type": kind, "status": "True" if holds else "False", "lastTransitionTime": now}


def _container(container: Container, state: Json, *, ready: bool, restarts: int) -> Json:
    return {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "state": state,
        "ready": ready,
        "started": ready,
        "restartCount": restarts,
    }


def _terminated(status: int, started_at: str, now: str) -> Json:
    reason = "Completed" if status == 0 else "Error"
    return {"exitCode": status, "reason": reason, "startedAt": started_at, "finishedAt": now}
