"""The data plane of a node: netlink, eBPF objects, making and unmaking pods' interfaces. No Kubernetes, no asyncio.

State is the kernel's: devices, maps, pins, routes, one nftables table. :class:`NodeDatapath` is the door.
"""
