"""``fast-agent``, the daemon on every node: configuration, sockets, loops. The logic is in the layers below.

Owns the node's unix socket, its tombstones and its CNI files. It must not decide about addresses (``fast.ipam``),
know the parts of the datapath (``fast.datapath``), or speak HTTP to the API server itself (``fast.kube``).
"""
