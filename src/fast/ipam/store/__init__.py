"""The store: reads and single writes of records, and the view that one process has of them.

Owns the view. It decides nothing; every write carries preconditions, and its caller decides what a conflict means.
"""
