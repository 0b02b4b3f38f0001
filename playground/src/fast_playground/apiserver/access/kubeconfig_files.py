"""Writing a kubeconfig that kubectl and Fast's own client read. Nothing about issuing what goes into it."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from fast_playground.apiserver.access.private_files import write_private


def write_kubeconfig(path: Path, *, server: str, ca_pem: bytes, user: str, token: str) -> None:
    """Write a kubeconfig with one cluster, user and context, all called ``fast``; replaces the file at once, mode 0600.

    Args:
        path: Where to.
        server: The API server's URL, as ``https://127.0.0.1:6443``.
        ca_pem: The certificate authority that signed the server's certificate.
        user: What the user is called in the file; for people.
        token: The user's bearer token.
    """
    authority = base64.b64encode(ca_pem).decode("ascii")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "fast", "cluster": {"server": server, "certificate-authority-data": authority}}
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "fast", "context": {"cluster": "fast", "user": user, "namespace": "default"}}],
        "current-context": "fast",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, yaml.safe_dump(config, sort_keys=False, encoding="utf-8"))
