"""Writes a kubeconfig that kubectl and Fast's own client read. It issues nothing that goes into it."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from fast.files import write_atomically


def write_kubeconfig(path: Path, *, server: str, ca_pem: bytes, user: str, token: str) -> None:
    """Write a kubeconfig with one cluster, user and context, all called ``fast``; mode 0600.

    Args:
        path: Where to; replaced at once.
        server: The API server's URL, as ``https://127.0.0.1:6443``.
        ca_pem: The certificate authority that signed the server's certificate.
        user: What the user is called in the file; for people.
        token: The user's bearer token.
    """
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca_pem).decode("ascii")}
    context = {"cluster": "fast", "user": user, "namespace": "default"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fast", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "fast", "context": context}],
        "current-context": "fast",
    }
    write_atomically(path, yaml.safe_dump(config, sort_keys=False, encoding="utf-8"), 0o600)
