"""NetworkPolicy in the kernel: the program on the stack path and its links, and the maps that only policy writes.

What goes into the maps is computed by ``fast.policy``. Policy's part of ``fast_local_pods`` and ``fast_cluster_pods``
is written by the owners of those maps.
"""
