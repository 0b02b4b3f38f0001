"""Fast: a Kubernetes network plugin with an eBPF data plane and cluster-wide address management.

The layers are drawn in ARCHITECTURE.md and held by import-linter; this package itself holds nothing but the version.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fast")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
