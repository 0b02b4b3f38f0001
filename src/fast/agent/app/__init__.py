"""The ``fast-agent`` command and the agent as a whole: creates the parts, starts them in order, stops them in reverse.

Owns the process: signals, threads, the order of a start. Leaves every decision to the parts.
"""
