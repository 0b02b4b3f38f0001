"""Claims: how an ADD gets an address of each family, and how a claim is undone.

Owns what the claims in flight have written. Which record belongs to whom is decided in ``fast.ipam.rules``.
"""
