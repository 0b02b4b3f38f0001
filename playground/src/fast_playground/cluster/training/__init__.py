"""Breaks things on purpose: stops, hangs and crashes programs and nodes, cuts cables, and runs a table of faults.

Owns the journal of what was broken, in the playground's directory; ``mend`` undoes what is in it. It changes nothing
outside a playground, and knows no cause that Fast's own tools could not find.
"""
