"""The one HTTP client of Fast: configuration, verbs, informer, work queue, leader election, events.

Handles the Kubernetes API's protocol (versions, conflicts, watches, throttling). What Fast does with the objects is
decided elsewhere: this package chooses no address and judges no pod.
"""

from fast.kube.api_config import ClusterConfig
from fast.kube.client import KubeClient, Listed
from fast.kube.event_recorder import EventRecorder
from fast.kube.heartbeat import Heartbeat, Silence
from fast.kube.informer import Change, Informer
from fast.kube.lease import LeaderElector
from fast.kube.workqueue import ShutDown, WorkQueue

__all__ = [
    "Change",
    "ClusterConfig",
    "EventRecorder",
    "Heartbeat",
    "Informer",
    "KubeClient",
    "LeaderElector",
    "Listed",
    "ShutDown",
    "Silence",
    "WorkQueue",
]
