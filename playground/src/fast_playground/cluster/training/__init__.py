"""Faults on purpose: programs and nodes that stop, hang and crash, cut cables, and the cases of a table.

Owns the journal of what was broken, in the playground's directory; ``mend`` undoes what is in it. It changes nothing
outside a playground, and knows no cause that Fast's own tools could not find.
"""
