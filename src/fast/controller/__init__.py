"""The ``fast-controller-manager``: what is decided once for the whole cluster, by one leader.

Writes ``Ips.status`` (a view for people, never the truth), holds deleted pools until their last address is free,
and frees addresses that no node answers for any more. It decides when and how often; ``fast.ipam.rules`` decides what.
"""
