"""Explanations: who holds an address and why, and where records, sandboxes and maps disagree.

Reads and compares; writes nothing and decides nothing. It asks the rules that agent and controller act by.
"""
