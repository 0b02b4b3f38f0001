"""The kubeconfig file format: reading, merging, choosing a context. ``config`` decides which files are read."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from fast.errors import InvalidConfig
from fast.kube.credentials import Credentials, ExecPlugin, Fixed, TLSFactory, TokenFile
from fast.kube.tls import ClientTLS, Pem, read_pem

_EXEC_VERSIONS = {"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"}

N = TypeVar("N", bound="NamedCluster | NamedUser | NamedContext")


class Cluster(msgspec.Struct, rename="kebab"):
    """``clusters[].cluster``."""

    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""


class ExecVariable(msgspec.Struct):
    """``exec.env[]``."""

    name: str
    value: str


class Exec(msgspec.Struct, rename="camel"):
    """``users[].user.exec``."""

    command: str
    api_version: str = ""
    args: list[str] | None = None
    env: list[ExecVariable] | None = None
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = "IfAvailable"


class User(msgspec.Struct, rename="kebab"):
    """``users[].user``."""

    token: str = ""
    token_file: str = msgspec.field(name="tokenFile", default="")
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    exec: Exec | None = None
    username: str = ""
    auth_provider: dict[str, object] | None = None
    impersonate: str = msgspec.field(name="as", default="")


class Context(msgspec.Struct):
    """``contexts[].context``."""

    cluster: str = ""
    user: str = ""
    namespace: str = ""


class NamedCluster(msgspec.Struct):
    """``clusters[]``."""

    name: str
    cluster: Cluster
    file: Path = Path()


class NamedUser(msgspec.Struct):
    """``users[]``."""

    name: str
    user: User
    file: Path = Path()


class NamedContext(msgspec.Struct):
    """``contexts[]``."""

    name: str
    context: Context
    file: Path = Path()


class Document(msgspec.Struct, rename="kebab"):
    """A kubeconfig file."""

    clusters: list[NamedCluster] | None = None
    users: list[NamedUser] | None = None
    contexts: list[NamedContext] | None = None
    current_context: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One context, resolved."""

    server: str
    credentials: Credentials
    tls: ClientTLS | None
    namespace: str
    server_name: str
    proxy: str


@dataclass(slots=True)
class Kubeconfig:
    """Merged kubeconfig files; every entry keeps its file, as relative paths start there."""

    clusters: dict[str, NamedCluster]
    users: dict[str, NamedUser]
    contexts: dict[str, NamedContext]
    current_context: str
    source: str

    def choose(self, name: str = "") -> Choice:
        """Resolve a context (default: the current one).

        Raises:
            InvalidConfig: The message names the file, the entry and the field.
        """
        name = name or self.current_context
        if not name:
            raise InvalidConfig(f"{self.source}: no context was named and current-context is not set")
        context = _entry(self.contexts, name, "context", self.source)
        cluster = _entry(
            self.clusters, context.context.cluster, "cluster", f"{context.file}: context {name!r}"
        )
        where = f"{cluster.file}: cluster {cluster.name!r}"
        if not cluster.cluster.server:
            raise InvalidConfig(f"{where} names no server")
        user = NamedUser("", User(), context.file)
        if context.context.user:
            user = _entry(self.users, context.context.user, "user", f"{context.file}: context {name!r}")
        trust = _trust(cluster, where)
        try:
            tls = _client_tls(user, trust) if cluster.cluster.server.startswith("https://") else None
        except InvalidConfig as error:
            raise InvalidConfig(f"{self.source}: context {name!r}: {error}") from error
        return Choice(
            server=cluster.cluster.server,
            credentials=_credentials(user, cluster, trust),
            tls=tls,
            namespace=context.context.namespace,
            server_name=cluster.cluster.tls_server_name,
            proxy=cluster.cluster.proxy_url,
        )


def read(paths: list[Path]) -> Kubeconfig:
    """Read and merge kubeconfig files: the first that sets a value wins (kubernetes.io: merging kubeconfig files).

    Raises:
        InvalidConfig: None of the files exists, or one is not a kubeconfig.
    """
    merged = Kubeconfig({}, {}, {}, "", ":".join(map(str, paths)))
    existing = [path for path in paths if path.exists()]
    if not existing:
        raise InvalidConfig(f"kubeconfig {merged.source} does not exist")
    for path in existing:
        document = _document(path)
        _merge(merged.clusters, document.clusters, path)
        _merge(merged.users, document.users, path)
        _merge(merged.contexts, document.contexts, path)
        merged.current_context = merged.current_context or document.current_context
    return merged


def _document(path: Path) -> Document:
    try:
        content = yaml.safe_load(read_pem(path, "kubeconfig"))
        # YAML's null stands for an absent field everywhere in Kubernetes' own files
        return msgspec.convert(_without_nulls(content if content is not None else {}), Document)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise InvalidConfig(f"{path} is not a kubeconfig: {error}") from error


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _merge(into: dict[str, N], entries: list[N] | None, path: Path) -> None:
    for entry in entries or []:
        entry.file = path
        into.setdefault(entry.name, entry)


def _entry(entries: dict[str, N], name: str, what: str, where: str) -> N:
    if name not in entries:
        known = ", ".join(sorted(entries)) or "none"
        raise InvalidConfig(f"{where}: there is no {what} {name!r} (there are: {known})")
    return entries[name]


def _pem(data: str, path: str, field: str, file: Path) -> Pem | None:
    """The content of ``<field>-data`` (which wins) or the file that ``<field>`` names, relative to the kubeconfig."""
    if data:
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise InvalidConfig(f"{file}: {field}-data is not base64: {error}") from error
    return file.parent / path if path else None


def _trust(entry: NamedCluster, where: str) -> TLSFactory:
    """Make the factory of TLS contexts that trust the cluster entry's authority."""
    cluster = entry.cluster
    ca = _pem(
        cluster.certificate_authority_data, cluster.certificate_authority, "certificate-authority", entry.file
    )
    if cluster.insecure_skip_tls_verify and ca is not None:
        raise InvalidConfig(
            f"{where}: insecure-skip-tls-verify with a certificate authority contradicts itself"
        )
    return partial(ClientTLS, ca=ca, insecure=cluster.insecure_skip_tls_verify)


def _client_tls(entry: NamedUser, trust: TLSFactory) -> ClientTLS:
    user = entry.user
    certificate = _pem(
        user.client_certificate_data, user.client_certificate, "client-certificate", entry.file
    )
    key = _pem(user.client_key_data, user.client_key, "client-key", entry.file)
    if (certificate is None) != (key is None):
        raise InvalidConfig(f"{entry.file}: user {entry.name!r} needs both client-certificate and client-key")
    return trust(certificate=certificate or b"", key=key or b"")


def _credentials(entry: NamedUser, cluster: NamedCluster, trust: TLSFactory) -> Credentials:
    user, where = entry.user, f"{entry.file}: user {entry.name!r}"
    unsupported = {"auth-provider": user.auth_provider, "username": user.username, "as": user.impersonate}
    for field, value in unsupported.items():
        if value:
            raise InvalidConfig(
                f"{where}: {field} is not supported; use a token, a client certificate or exec"
            )
    if user.token_file:  # wins over token, as in client-go
        return TokenFile(entry.file.parent / user.token_file)
    if user.token:
        return Fixed(user.token)
    if user.exec is not None:
        return _exec_plugin(user.exec, where, entry.file, cluster, trust)
    return Fixed()


def _exec_plugin(
    plugin: Exec, where: str, file: Path, cluster: NamedCluster, trust: TLSFactory
) -> ExecPlugin:
    if plugin.api_version not in _EXEC_VERSIONS:
        supported = ", ".join(sorted(_EXEC_VERSIONS))
        raise InvalidConfig(f"{where}: exec.apiVersion {plugin.api_version!r} is none of {supported}")
    if plugin.interactive_mode == "Always":
        raise InvalidConfig(f"{where}: exec.interactiveMode Always needs a user at a terminal")
    info: dict[str, object] = {"server": cluster.cluster.server}
    if cluster.cluster.insecure_skip_tls_verify:
        info["insecure-skip-tls-verify"] = True
    ca = _pem(
        cluster.cluster.certificate_authority_data,
        cluster.cluster.certificate_authority,
        "certificate-authority",
        cluster.file,
    )
    if ca is not None:
        content = read_pem(ca, "certificate-authority")
        info["certificate-authority-data"] = base64.b64encode(content).decode()
    # a relative command with a slash starts at the kubeconfig's folder; a bare name is searched on PATH
    command = str(file.parent / plugin.command) if "/" in plugin.command else plugin.command
    return ExecPlugin(
        command=command,
        args=tuple(plugin.args or ()),
        environment={item.name: item.value for item in plugin.env or ()},
        api_version=plugin.api_version,
        tls_factory=trust,
        cluster=info if plugin.provide_cluster_info else None,
        install_hint=plugin.install_hint,
    )
