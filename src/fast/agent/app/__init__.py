"""The ``fast-agent`` command, and the agent as a whole: makes the parts, starts them in order, stops them in reverse.

Owns the process: signals, threads, the order of a start. Decides nothing that a part could decide.
"""
