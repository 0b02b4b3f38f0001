"""NetworkPolicy on this node: from the watched objects through ``fast.policy`` into the datapath's maps.

It owns the order: a pod's rules are in the maps before its ADD makes an interface; nothing is written before every list
is complete. It must not know what policies mean (``fast.policy``) or how maps are laid out (``fast.datapath``).
"""
