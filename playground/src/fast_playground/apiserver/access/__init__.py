"""Authentication and authorization: certificates, tokens, kubeconfigs, and RBAC over the stored roles.

It owns the files ``pki/`` and ``tokens.json`` of the data directory. It knows nothing of HTTP: the server asks it, with
what a request carried.
"""

from fast_playground.apiserver.access.access_control import AccessControl
from fast_playground.apiserver.access.certificates import Authority
from fast_playground.apiserver.access.kubeconfig_files import write_kubeconfig
from fast_playground.apiserver.access.tokens import TokenStore

__all__ = ["AccessControl", "Authority", "TokenStore", "write_kubeconfig"]
