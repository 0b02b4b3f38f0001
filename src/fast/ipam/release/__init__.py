"""Releases: what a DEL frees, and what the garbage collection of agents and controller frees.

Owns what a garbage collection remembers between two sweeps. ``fast.ipam.rules`` decides which record may be freed.
"""
