"""What follows the API server: the map of the cluster, contact, garbage collection, and the audit of this node.

Owns those loops. Which address belongs to whom is decided in ``fast.ipam``.
"""
