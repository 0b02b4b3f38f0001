"""The server's own certificate authority, and the certificates it signs. It knows nothing of rights."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fast.files import write_atomically

_VALIDITY = datetime.timedelta(days=3650)
_RENEW_BEFORE = datetime.timedelta(days=30)
_CLOCK_SKEW = datetime.timedelta(minutes=5)
#: Names by which a pod or a person may call any API server.
_ALWAYS = ("localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, as PEM."""

    certificate_pem: bytes
    key_pem: bytes


class Authority:
    """A certificate authority kept in a directory.

    Args:
        directory: Holds ``ca.crt``, ``ca.key``, ``server.crt``, ``server.key`` (keys 0600); made if missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (self.ca_path.exists() and self._key_path("ca").exists()):
            self._create_ca()
        self._key = _load_key(self._key_path("ca"))
        self._certificate = x509.load_pem_x509_certificate(self.ca_path.read_bytes())

    @property
    def ca_path(self) -> Path:
        """Where the authority's own certificate is."""
        return self._directory / "ca.crt"

    @property
    def ca_pem(self) -> bytes:
        """The authority's own certificate, which clients must trust."""
        return self.ca_path.read_bytes()

    def server_context(self, addresses: Iterable[str] = ()) -> ssl.SSLContext:
        """Make the TLS context of the server, with a certificate for these names.

        A client may show a certificate of this authority; one of another authority fails the handshake.

        Args:
            addresses: Host names and IP addresses by which clients call it, beyond localhost.
        """
        self._ensure_server_certificate(sorted({*_ALWAYS, *addresses}))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._directory / "server.crt", self._key_path("server"))
        context.load_verify_locations(self.ca_path)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["http/1.1"])
        return context

    def issue_client(self, name: str, groups: Sequence[str] = ()) -> Certificate:
        """Sign a client certificate: the common name is the user, each organisation a group (Kubernetes' rule)."""
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        attributes += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        return self._issue(x509.Name(attributes), ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def _ensure_server_certificate(self, names: Sequence[str]) -> None:
        path = self._directory / "server.crt"
        if path.exists() and self._key_path("server").exists() and _serves(path, names):
            return
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fast-apiserver")])
        issued = self._issue(subject, ExtendedKeyUsageOID.SERVER_AUTH, names)
        write_atomically(self._key_path("server"), issued.key_pem, 0o600)
        write_atomically(path, issued.certificate_pem, 0o644)

    def _create_ca(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fast-apiserver-ca")])
        certificate = _builder(name, name, key.public_key(), is_ca=True).sign(key, hashes.SHA256())
        write_atomically(self._key_path("ca"), _key_pem(key), 0o600)
        write_atomically(self.ca_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)

    def _issue(self, subject: x509.Name, usage: x509.ObjectIdentifier, names: Sequence[str]) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._certificate.subject, key.public_key(), is_ca=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        for extension in (x509.ExtendedKeyUsage([usage]), authority):
            builder = builder.add_extension(extension, critical=False)
        if names:
            alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Certificate(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))

    def _key_path(self, name: str) -> Path:
        return self._directory / f"{name}.key"


def _serves(path: Path, names: Sequence[str]) -> bool:
    """Whether a certificate is for these names and still good for a while."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    if certificate.not_valid_after_utc - _RENEW_BEFORE < _now():
        return False
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value) >= {_general_name(name) for name in names}


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, *, is_ca: bool
) -> x509.CertificateBuilder:
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    usage = dict.fromkeys((*unused, "decipher_only"), False)
    usage |= {"digital_signature": True, "key_cert_sign": is_ca, "crl_sign": is_ca}
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _CLOCK_SKEW)
        .not_valid_after(_now() + _VALIDITY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} holds no elliptic-curve key")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
