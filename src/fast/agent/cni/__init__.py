"""Serves the container runtime: the unix socket, the CNI files on disk, and the DELs that wait there.

Owns ``/run/fast/agent.sock``, the tombstones and the conflist. The verbs themselves are in ``fast.cni``.
"""
