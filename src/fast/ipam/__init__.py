"""Address management: who owns which address of the cluster, and when it becomes free (DESIGN section 4).

``rules`` decides, without I/O; ``pool`` knows what is free; ``ipam`` carries decisions out for one node, by
single writes with preconditions; ``store`` says what it needs of the place where records live. Never touches
the kernel: whether a sandbox exists, others say.
"""

from fast.ipam.attachment_locks import AttachmentLocks, finish
from fast.ipam.ipam_metrics import IpamMetrics
from fast.ipam.node_ipam import Ipam
from fast.ipam.pool.pool_counts import PoolCounts
from fast.ipam.rules.claim_request import Attachment, AttachmentKey, ClaimRequest, NodeIdentity, resolve_pools
from fast.ipam.store.kube_store import KubeStore
from fast.ipam.store.record_store import EndpointChange, PodView, PoolChange, Store

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
    "finish",
    "resolve_pools",
]
