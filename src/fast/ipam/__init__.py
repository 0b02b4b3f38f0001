"""Address management: who holds which address of the cluster, and when it becomes free.

``rules`` decides, without I/O. ``pool`` knows what is free. ``claim`` and ``release`` carry decisions out by single
writes with preconditions; ``node_ipam`` joins them for one node's agent, the controller uses ``release`` itself.
``store`` is the place where records live, ``explain`` says why an address is as it is.

Nothing here touches the kernel: the caller says which sandboxes exist.
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
