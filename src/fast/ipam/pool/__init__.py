"""Pools: which addresses of a pool are free, and which records count against it.

Owns the bookkeeping of one process, built from the view of the records. No I/O.
"""
