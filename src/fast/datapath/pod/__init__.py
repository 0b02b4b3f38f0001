"""One pod's interface: the veth, its addresses and routes, its programs, and its entry in the map of local pods.

Its state is the kernel's. Anything that more than one pod needs belongs to ``fast.datapath.node``.
"""
