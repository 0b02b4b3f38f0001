"""``fast-ctl``: looks into a node's eBPF maps and changes them, explains addresses and drops, hosts the playground.

A command lives in ``fast.ctl.<name>`` as the click command ``<name>`` (dashes as underscores) and is imported
when asked for; commands of layers above hang in by the entry point group ``fast.ctl.commands``. Modules import click
and the standard library at their top, and what is slow to import in functions: start-up time counts.
"""
