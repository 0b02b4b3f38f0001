"""A Kubernetes cluster on one machine, for trying Fast out and for its tests.

``apiserver`` is an embedded Kubernetes API server; ``cluster`` runs Fast's programs on nodes made of namespaces. This
distribution imports ``fast``; ``fast`` must never import it.
"""
