"""The controllers that run inside the server: workloads, namespaces, garbage collection, and the scheduler.

They are clients of the server's own ``Verbs``, as in Kubernetes: they see committed state only, and
their writes are checked like everybody's. They keep no state that a restart would lose.
"""

from __future__ import annotations

import asyncio

from fast_playground.apiserver.registry import Registry
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.workloads.deployment import DeploymentController
from fast_playground.apiserver.workloads.garbage import GarbageCollector
from fast_playground.apiserver.workloads.namespaces import NamespaceController
from fast_playground.apiserver.workloads.nodes import NodeController
from fast_playground.apiserver.workloads.replicaset import ReplicaSetController
from fast_playground.apiserver.workloads.scheduler import Scheduler
from fast_playground.apiserver.workloads.statefulset import StatefulSetController

__all__ = ["run_workloads"]


async def run_workloads(
    api: Verbs, registry: Registry, *, scheduler: bool = True, node_grace_seconds: float = 40.0
) -> None:
    """Run every controller until cancelled.

    Args:
        api: The verbs.
        registry: The kinds there are.
        scheduler: Bind pods to nodes, too.
        node_grace_seconds: How long a node may be silent before it counts as unreachable, or gone before its pods go.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(NamespaceController(api, registry).run(), name="namespaces")
        group.create_task(GarbageCollector(api, registry).run(), name="garbage collector")
        group.create_task(NodeController(api, node_grace_seconds).run(), name="nodes")
        group.create_task(DeploymentController(api).run(), name="deployments")
        group.create_task(ReplicaSetController(api).run(), name="replica sets")
        group.create_task(StatefulSetController(api).run(), name="stateful sets")
        if scheduler:
            group.create_task(Scheduler(api).run(), name="scheduler")
