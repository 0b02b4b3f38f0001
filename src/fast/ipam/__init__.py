"""Address management: who owns which address of the cluster, and when it becomes free (DESIGN section 4).

``rules`` decides, without I/O; ``pool`` knows what is free; ``ipam`` carries decisions out for one node, by
single writes with preconditions; ``store`` says what it needs of the place where records live. Never touches
the kernel: whether a sandbox exists, others say.
"""

from fast.ipam.ipam import Ipam
from fast.ipam.kube_store import KubeStore
from fast.ipam.ledger import PoolCounts
from fast.ipam.locks import AttachmentLocks
from fast.ipam.metrics import IpamMetrics
from fast.ipam.request import Attachment, AttachmentKey, ClaimRequest, NodeIdentity, resolve_pools
from fast.ipam.store import EndpointChange, PodView, PoolChange, Store

__all__ = [
    "Attachment",
    "AttachmentKey",
    "AttachmentLocks",
    "ClaimRequest",
    "EndpointChange",
    "Ipam",
    "IpamMetrics",
    "KubeStore",
    "NodeIdentity",
    "PodView",
    "PoolChange",
    "PoolCounts",
    "Store",
    "resolve_pools",
]
