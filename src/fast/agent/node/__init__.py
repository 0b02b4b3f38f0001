"""Keeps this node sound: brings up and repairs the datapath, finds and names problems.

Owns the loops that do so. Only ``fast.datapath`` knows the datapath's parts.
"""
