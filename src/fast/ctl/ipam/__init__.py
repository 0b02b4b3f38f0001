"""``fast-ctl ipam``: pools, who holds an address, what garbage collection would free, and the audit.

Looks things up and prints them. The rules it quotes are those in ``fast.ipam``.
"""
