"""The configuration is found where Kubernetes' own tools find it, and what is wrong with it is said clearly."""

from __future__ import annotations

import base64
import os
import ssl
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fast.errors import InvalidConfig, NoCredentials
from fast.kube import ClusterConfig
from fast.kube.credentials import TokenFile
from fast.kube.tls import ClientTLS


def pem_pair(password: bytes | None = None) -> tuple[bytes, bytes]:
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption),
    )


CERTIFICATE, KEY = pem_pair()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def kubeconfig(path: Path, *, user: dict | None = None, cluster: dict | None = None, **more) -> Path:
    """Write a kubeconfig of one context, ``c``."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": "https://10.0.0.1:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "here"}}],
        **more,
    }
    path.write_text(yaml.safe_dump(document))
    return path


async def authorization(config: ClusterConfig) -> str:
    return (await config.credentials.grant()).authorization


async def test_a_kubeconfig_with_a_token(tmp_path):
    config = ClusterConfig.load(kubeconfig(tmp_path / "config", user={"token": "secret"}))
    assert (config.server, config.namespace) == ("https://10.0.0.1:6443", "here")
    assert await authorization(config) == "Bearer secret"
    assert isinstance(config.tls, ClientTLS)


async def test_a_token_file_wins_over_a_token_and_is_relative_to_the_kubeconfig(tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    config = ClusterConfig.load(kubeconfig(tmp_path / "config", user={"token": "x", "tokenFile": "token"}))
    assert await authorization(config) == "Bearer from-file"


@pytest.mark.parametrize("inline", [True, False])
def test_client_certificate_and_authority_inline_or_as_files(tmp_path, inline):
    (tmp_path / "crt").write_bytes(CERTIFICATE)
    (tmp_path / "key").write_bytes(KEY)
    if inline:
        user = {"client-certificate-data": encoded(CERTIFICATE), "client-key-data": encoded(KEY)}
        cluster = {"certificate-authority-data": encoded(CERTIFICATE)}
    else:
        user, cluster = {"client-certificate": "crt", "client-key": "key"}, {"certificate-authority": "crt"}
    config = ClusterConfig.load(kubeconfig(tmp_path / "config", user=user, cluster=cluster))
    assert config.tls is not None
    assert config.tls.context().verify_mode is ssl.CERT_REQUIRED
    assert len(config.tls.context().get_ca_certs()) == 1


def test_insecure_skip_tls_verify_trusts_any_server(tmp_path):
    config = ClusterConfig.load(kubeconfig(tmp_path / "config", cluster={"insecure-skip-tls-verify": True}))
    assert config.tls is not None
    assert config.tls.context().verify_mode is ssl.CERT_NONE


def test_server_name_and_proxy_are_taken_over(tmp_path):
    cluster = {"tls-server-name": "kubernetes", "proxy-url": "http://127.0.0.1:1"}
    config = ClusterConfig.load(kubeconfig(tmp_path / "config", cluster=cluster))
    assert (config.server_name, config.proxy) == ("kubernetes", "http://127.0.0.1:1")


def test_plain_http_needs_no_tls(tmp_path):
    config = ClusterConfig.load(kubeconfig(tmp_path / "config", cluster={"server": "http://127.0.0.1:8080/"}))
    assert config.tls is None
    assert config.server == "http://127.0.0.1:8080"


def test_another_context_can_be_chosen(tmp_path):
    path = kubeconfig(
        tmp_path / "config",
        contexts=[
            {"name": "c", "context": {"cluster": "k", "user": "u"}},
            {"name": "d", "context": {"cluster": "k", "user": "u", "namespace": "there"}},
        ],
    )
    assert ClusterConfig.load(path).namespace == "default"
    assert ClusterConfig.load(path, context="d").namespace == "there"


def test_of_several_files_the_first_that_sets_a_value_wins_and_missing_ones_are_skipped(tmp_path):
    first = tmp_path / "first"
    first.write_text("current-context: c\n")
    second = kubeconfig(tmp_path / "second")
    third = kubeconfig(tmp_path / "third", cluster={"server": "https://other"}, **{"current-context": "x"})
    listed = os.pathsep.join(map(str, (tmp_path / "missing", first, second, third)))
    config = ClusterConfig.load(environment={"KUBECONFIG": listed})
    assert config.server == "https://10.0.0.1:6443"


def test_nulls_are_absent_fields(tmp_path):
    path = kubeconfig(
        tmp_path / "config", user={"token": None, "exec": None}, users=[{"name": "u", "user": {}}]
    )
    assert ClusterConfig.load(path).server


def test_kubeconfig_in_the_home_folder_comes_last(tmp_path):
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube" / "config")
    assert ClusterConfig.load(environment={"HOME": str(tmp_path)}).namespace == "here"


def service_account(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text("first")
    (folder / "ca.crt").write_bytes(CERTIFICATE)
    (folder / "namespace").write_text("kube-system")
    return folder


@pytest.mark.parametrize(
    ("host", "server"), [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
async def test_in_a_pod_the_service_account_is_used(tmp_path, host, server):
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443", "HOME": "/nonexistent"}
    config = ClusterConfig.load(environment=environment, service_account_dir=service_account(tmp_path / "sa"))
    assert (config.server, config.namespace) == (server, "kube-system")
    assert await authorization(config) == "Bearer first"


async def test_a_kubeconfig_that_is_named_wins_over_being_in_a_pod(tmp_path):
    path = kubeconfig(tmp_path / "config")
    environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBECONFIG": str(path)}
    config = ClusterConfig.load(environment=environment, service_account_dir=service_account(tmp_path / "sa"))
    assert config.server == "https://10.0.0.1:6443"


async def test_a_token_file_is_read_again_when_it_was_replaced(tmp_path, monkeypatch):
    path = tmp_path / "token"
    path.write_text("first")
    file = TokenFile(path)
    assert (await file.grant()).authorization == "Bearer first"
    path.write_text("second")
    assert (await file.grant()).authorization == "Bearer first"
    later = time.monotonic() + 11
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert (await file.grant()).authorization == "Bearer second"


async def test_a_token_file_is_read_again_when_its_token_was_refused(tmp_path):
    path = tmp_path / "token"
    path.write_text("first")
    file = TokenFile(path)
    await file.grant()
    path.write_text("second")
    file.refuse()
    assert (await file.grant()).authorization == "Bearer second"


@pytest.mark.parametrize(
    "harm",
    [Path.unlink, lambda path: path.write_text("\n"), lambda path: path.write_bytes(b"\xff")],
    ids=["away", "truncated", "garbled"],
)
async def test_the_last_token_is_kept_while_the_file_cannot_be_used(tmp_path, harm):
    path = tmp_path / "token"
    path.write_text("first")
    file = TokenFile(path)
    await file.grant()
    harm(path)
    file.refuse()
    assert (await file.grant()).authorization == "Bearer first"
    path.write_text("second")
    file.refuse()
    assert (await file.grant()).authorization == "Bearer second"


async def test_a_token_file_that_was_empty_from_the_start_is_named(tmp_path):
    (tmp_path / "token").write_text("\n")
    with pytest.raises(NoCredentials, match="token: it is empty"):
        await TokenFile(tmp_path / "token").grant()


async def test_a_token_file_that_was_never_there_is_named(tmp_path):
    with pytest.raises(NoCredentials, match="token: No such file"):
        await TokenFile(tmp_path / "token").grant()


def plugin(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"./{path.name}"


def exec_user(command: str, **more) -> dict:
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": command, **more}}


def credential(status: str) -> str:
    return (
        'echo \'{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": '
        f"{status}}}'"
    )


async def test_an_exec_plugin_is_run_once_and_its_token_kept_until_it_expires(tmp_path):
    script = "echo run >> runs; " + credential(
        '{"token": "t", "expirationTimestamp": "2999-01-01T00:00:00Z"}'
    )
    command = plugin(tmp_path / "plugin", f"cd {tmp_path}; {script}")
    config = ClusterConfig.load(kubeconfig(tmp_path / "config", user=exec_user(command)))
    for _ in range(3):
        assert await authorization(config) == "Bearer t"
    assert (tmp_path / "runs").read_text().count("run") == 1
    config.credentials.refuse()
    await authorization(config)
    assert (tmp_path / "runs").read_text().count("run") == 2


async def test_an_exec_plugins_expired_token_is_replaced(tmp_path):
    script = "echo run >> runs; " + credential(
        '{"token": "t", "expirationTimestamp": "2001-01-01T00:00:00Z"}'
    )
    command = plugin(tmp_path / "plugin", f"cd {tmp_path}; {script}")
    config = ClusterConfig.load(kubeconfig(tmp_path / "config", user=exec_user(command)))
    await authorization(config)
    await authorization(config)
    assert (tmp_path / "runs").read_text().count("run") == 2


async def test_an_exec_plugin_gets_its_arguments_its_variables_and_the_cluster(tmp_path):
    script = f'printf "%s|" "$1" "$FLAVOUR" "$KUBERNETES_EXEC_INFO" > {tmp_path}/seen; ' + credential(
        '{"token": "t"}'
    )
    command = plugin(tmp_path / "plugin", script)
    user = exec_user(
        command, args=["login"], env=[{"name": "FLAVOUR", "value": "mint"}], provideClusterInfo=True
    )
    config = ClusterConfig.load(kubeconfig(tmp_path / "config", user=user))
    await authorization(config)
    argument, flavour, info, _ = (tmp_path / "seen").read_text().split("|")
    assert (argument, flavour) == ("login", "mint")
    assert yaml.safe_load(info)["spec"] == {
        "interactive": False,
        "cluster": {"server": "https://10.0.0.1:6443"},
    }


async def test_an_exec_plugin_may_answer_with_a_client_certificate(tmp_path):
    one_line = str.maketrans({"\n": "\\n"})
    certificate, key = (pem.decode().translate(one_line) for pem in (CERTIFICATE, KEY))
    answer = credential(f'{{"clientCertificateData": "{certificate}", "clientKeyData": "{key}"}}')
    command = plugin(tmp_path / "plugin", f"cat <<'END'\n{answer[len('echo ') + 1 : -1]}\nEND")
    config = ClusterConfig.load(kubeconfig(tmp_path / "config", user=exec_user(command)))
    grant = await config.credentials.grant()
    assert grant.authorization == ""
    assert isinstance(grant.tls, ClientTLS)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo broken >&2; exit 3", "status 3: broken"),
        ("echo nonsense", "did not print an ExecCredential"),
        (credential("{}"), "neither a token nor a client certificate"),
        (credential('{"token": "t"}').replace("/v1", "/v1beta1"), "the kubeconfig says"),
        (credential('{"token": "t", "expirationTimestamp": "soon"}'), "not an RFC 3339 time"),
        (credential('{"clientCertificateData": "x", "clientKeyData": "y"}'), "plugin: client certificate"),
    ],
)
async def test_an_exec_plugin_that_fails_says_how(tmp_path, script, words):
    command = plugin(tmp_path / "plugin", script)
    config = ClusterConfig.load(kubeconfig(tmp_path / "config", user=exec_user(command)))
    with pytest.raises(NoCredentials, match=words):
        await authorization(config)


async def test_an_exec_plugin_that_is_missing_says_how_to_get_it(tmp_path):
    user = exec_user("no-such-plugin", installHint="install it so")
    config = ClusterConfig.load(kubeconfig(tmp_path / "config", user=user))
    with pytest.raises(NoCredentials, match=r"no-such-plugin: No such file[^\n]*\ninstall it so"):
        await authorization(config)


REFUSED = {
    "current-context is not set": {"current-context": ""},
    r"there is no context 'x' \(there are: c\)": {"current-context": "x"},
    "there is no cluster 'k'": {"clusters": []},
    r"there is no user 'u' \(there are: none\)": {"users": None},
    "names no server": {"cluster": {"server": ""}},
    "is not an http or https URL": {"cluster": {"server": "10.0.0.1"}},
    "certificate-authority: .*nowhere: No such file": {"cluster": {"certificate-authority": "nowhere"}},
    "certificate-authority-data is not base64": {"cluster": {"certificate-authority-data": "???"}},
    "the certificate authority is not a PEM": {"cluster": {"certificate-authority-data": encoded(b"x")}},
    "contradicts itself": {
        "cluster": {"insecure-skip-tls-verify": True, "certificate-authority-data": encoded(CERTIFICATE)}
    },
    "needs both client-certificate and client-key": {
        "user": {"client-certificate-data": encoded(CERTIFICATE)}
    },
    "client certificate and key cannot be used": {
        "user": {"client-certificate-data": encoded(CERTIFICATE), "client-key-data": encoded(pem_pair()[1])}
    },
    "the private key is encrypted": {
        "user": dict(
            zip(("client-certificate-data", "client-key-data"), map(encoded, pem_pair(b"pw")), strict=True)
        )
    },
    "auth-provider is not supported": {"user": {"auth-provider": {"name": "gcp"}}},
    "username is not supported": {"user": {"username": "me", "password": "x"}},
    "as is not supported": {"user": {"as": "somebody"}},
    "exec.apiVersion 'v0' is none of": {"user": {"exec": {"apiVersion": "v0", "command": "x"}}},
    "needs a user at a terminal": {"user": exec_user("x", interactiveMode="Always")},
    "is not a kubeconfig": {"clusters": "x"},
}


@pytest.mark.parametrize(("words", "changes"), REFUSED.items())
def test_a_kubeconfig_that_cannot_be_used_says_why(tmp_path, words, changes):
    with pytest.raises(InvalidConfig, match=words):
        ClusterConfig.load(kubeconfig(tmp_path / "config", **changes))


@pytest.mark.parametrize("content", ["{", "- a", "text"])
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path, content):
    (tmp_path / "config").write_text(content)
    with pytest.raises(InvalidConfig, match="config is not a kubeconfig"):
        ClusterConfig.load(tmp_path / "config")


def test_a_named_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InvalidConfig, match="missing does not exist"):
        ClusterConfig.load(tmp_path / "missing")


def test_where_nothing_is_configured_every_place_that_was_looked_at_is_named(tmp_path):
    with pytest.raises(InvalidConfig, match=r"KUBECONFIG is not set.*no token.*\.kube/config does not exist"):
        ClusterConfig.load(environment={"HOME": str(tmp_path)}, service_account_dir=tmp_path)
