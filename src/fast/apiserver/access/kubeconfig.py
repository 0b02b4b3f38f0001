"""Writing a kubeconfig that kubectl and Fast's own client read. Nothing about issuing what goes into it."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import yaml

from fast.apiserver.access.certificates import Certificate


def write_kubeconfig(
    path: Path,
    *,
    server: str,
    ca_pem: bytes,
    user: str,
    credentials: str | Certificate,
    namespace: str = "default",
) -> None:
    """Write a kubeconfig with one cluster, user and context, all called ``fast``; replaces the file at once, mode 0600.

    Args:
        path: Where to.
        server: The API server's URL, as ``https://127.0.0.1:6443``.
        ca_pem: The certificate authority that signed the server's certificate.
        user: What the user is called in the file; for people.
        credentials: A bearer token, or a client certificate.
        namespace: The context's default namespace.
    """
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "fast", "cluster": {"server": server, "certificate-authority-data": _base64(ca_pem)}}
        ],
        "users": [{"name": user, "user": _user(credentials)}],
        "contexts": [{"name": "fast", "context": {"cluster": "fast", "user": user, "namespace": namespace}}],
        "current-context": "fast",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        yaml.safe_dump(config, stream, sort_keys=False)
    temporary.replace(path)


def _user(credentials: str | Certificate) -> dict[str, Any]:
    if isinstance(credentials, str):
        return {"token": credentials}
    return {
        "client-certificate-data": _base64(credentials.certificate_pem),
        "client-key-data": _base64(credentials.key_pem),
    }


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
