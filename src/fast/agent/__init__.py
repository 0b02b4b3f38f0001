"""``fast-agent``: the daemon on every node. Wiring: configuration, sockets, loops; the logic is in the layers below.

Owns the node's unix socket, its tombstones and its CNI files. It must not decide about addresses (``fast.ipam``),
know what the datapath consists of (``fast.datapath``), or speak HTTP to the API server itself (``fast.kube``).
"""
