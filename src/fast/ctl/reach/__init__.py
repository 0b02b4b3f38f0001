"""Running ``fast-ctl`` on other nodes: which nodes there are, the way to each, and several at once.

Owns no state. The way is the API server's exec with the caller's own rights, a playground's own way, or none if the
node is this one. What is run and printed is up to the commands.
"""
