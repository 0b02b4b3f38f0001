"""The datapath of a node as a whole: devices, routes, rules and programs that every pod needs.

Its state is the kernel's. :class:`~fast.datapath.node.node_datapath.NodeDatapath` is the one door for the layers above.
"""
