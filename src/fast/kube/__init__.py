"""The one HTTP client of Fast: configuration, verbs, informer, work queue, leader election, events.

Knows the Kubernetes API's manners (versions, conflicts, watches, throttling) and nothing of what Fast does with
the objects: no address is chosen and no pod is judged here.
"""

from fast.kube.api_config import ClusterConfig
from fast.kube.client import KubeClient, Listed
from fast.kube.event_recorder import EventRecorder
from fast.kube.informer import Change, Informer
from fast.kube.lease import LeaderElector
from fast.kube.workqueue import ShutDown, WorkQueue

__all__ = [
    "Change",
    "ClusterConfig",
    "EventRecorder",
    "Informer",
    "KubeClient",
    "LeaderElector",
    "Listed",
    "ShutDown",
    "WorkQueue",
]
