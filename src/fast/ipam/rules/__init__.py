"""The rules: who owns an address, when it becomes free, and what a pod asks for. Functions without I/O or state.

Everything that decides about an address asks here, so that agent, controller and ``fast-ctl`` cannot disagree.
"""
