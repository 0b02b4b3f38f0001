"""TLS contexts from PEM bytes. Keys never touch a disk here: OpenSSL reads them through a memory file."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from fast.errors import InvalidConfig


def client_context(
    *, ca: bytes | None = None, insecure: bool = False, certificate: bytes = b"", key: bytes = b""
) -> ssl.SSLContext:
    """Make the TLS context of connections to the API server.

    Args:
        ca: Certificate authorities to trust, PEM; None trusts the system's.
        insecure: Trust any server certificate (``insecure-skip-tls-verify``).
        certificate: A client certificate chain, PEM; empty for none.
        key: Its private key, PEM, not encrypted.

    Raises:
        InvalidConfig: Bad PEM, or a key that does not belong to the certificate.
    """
    try:
        context = ssl.create_default_context(cadata=ca.decode() if ca is not None else None)
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        raise InvalidConfig(f"the certificate authority is no PEM certificate: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Kubernetes' own CAs, kubeadm's among them, lack the key identifiers that OpenSSL's strict mode wants.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        try:
            with _memory_file(certificate) as cert_path, _memory_file(key) as key_path:
                context.load_cert_chain(cert_path, key_path, password=_refuse_password)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidConfig(f"client certificate and key cannot be used: {error}") from error
    return context


def _refuse_password() -> str:
    """OpenSSL would ask the terminal for the password of an encrypted key."""
    raise ValueError("the private key is encrypted; Kubernetes configuration has no password for it")


@contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("fast-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
