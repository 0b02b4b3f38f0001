"""Commands about one node's eBPF maps: ``local-ips``, ``cluster-ips``, ``local-dev``, ``flows``, ``metrics``.

They open the pinned maps of the node they run on. They ask no API server.
"""
