"""The API server's address and our credentials: in-cluster, or a kubeconfig. Reads files; sends nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from fast.errors import InvalidConfig
from fast.kube import kubeconfig
from fast.kube.credentials import Credentials, Fixed, TokenFile
from fast.kube.tls import ClientTLS

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(slots=True)
class ClusterConfig:
    """One API server and our credentials there.

    Attributes:
        server: URL without a trailing slash, as ``https://10.0.0.1:6443``; may have a path.
        credentials: Asked before every request.
        tls: What TLS connections are made with; None for plain HTTP, or to trust what the system trusts.
        namespace: The namespace to use if none is named.
        server_name: The name to expect in the server's certificate (``tls-server-name``); empty: the URL's host.
        proxy: URL of an HTTP proxy; empty for none.
        impersonate: The user to act as (``kubectl --as``); empty for ourselves.
    """

    server: str
    credentials: Credentials = field(default_factory=Fixed)
    tls: ClientTLS | None = None
    namespace: str = "default"
    server_name: str = ""
    proxy: str = ""
    impersonate: str = ""

    def __post_init__(self) -> None:
        self.server = self.server.rstrip("/")
        parts = urlsplit(self.server)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InvalidConfig(f"API server {self.server!r} is not an http or https URL")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        context: str = "",
        environment: Mapping[str, str] | None = None,
        service_account_dir: Path = SERVICE_ACCOUNT_DIR,
    ) -> ClusterConfig:
        """Find the configuration: ``path``, else ``KUBECONFIG``, else in-cluster, else ``~/.kube/config``.

        Args:
            path: A kubeconfig file; must exist where given.
            context: The context to use instead of the file's current one.
            environment: Instead of the process's own.
            service_account_dir: Where a pod finds its token.

        Raises:
            InvalidConfig: Nothing found, or what was found cannot be used; the message names the file and the field.
        """
        variables = os.environ if environment is None else environment
        if path:
            return cls.from_kubeconfig([Path(path)], context)
        if listed := variables.get("KUBECONFIG"):
            return cls.from_kubeconfig([Path(item) for item in listed.split(os.pathsep) if item], context)
        if "KUBERNETES_SERVICE_HOST" in variables and (service_account_dir / "token").exists():
            return cls.in_cluster(variables, service_account_dir)
        home = Path(variables.get("HOME", "/root")) / ".kube" / "config"
        if home.exists():
            return cls.from_kubeconfig([home], context)
        raise InvalidConfig(
            f"no way to the API server: no kubeconfig was named, KUBECONFIG is not set, {service_account_dir} holds "
            f"no token (so this is not a pod), and {home} does not exist"
        )

    @classmethod
    def in_cluster(
        cls, environment: Mapping[str, str], service_account_dir: Path = SERVICE_ACCOUNT_DIR
    ) -> ClusterConfig:
        """Read what kubelet gives a pod; token and certificate authority are read again when they are replaced.

        Raises:
            InvalidConfig: Variables or files are missing.
        """
        host = environment.get("KUBERNETES_SERVICE_HOST", "")
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise InvalidConfig("KUBERNETES_SERVICE_HOST is not set: this is not a pod")
        namespace_file = service_account_dir / "namespace"
        return cls(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            credentials=TokenFile(service_account_dir / "token"),
            tls=ClientTLS(ca=service_account_dir / "ca.crt"),
            namespace=namespace_file.read_text().strip() if namespace_file.exists() else "default",
        )

    @classmethod
    def from_kubeconfig(cls, paths: list[Path], context: str = "") -> ClusterConfig:
        """Read kubeconfig files; the first file that sets a value wins, and missing files are skipped.

        Raises:
            InvalidConfig: None exists, or the chosen context cannot be used.
        """
        found = kubeconfig.read(paths).choose(context)
        return cls(
            server=found.server,
            credentials=found.credentials,
            tls=found.tls,
            namespace=found.namespace or "default",
            server_name=found.server_name,
            proxy=found.proxy,
        )
