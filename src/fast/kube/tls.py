"""TLS contexts from PEM, in memory or in files that are replaced at run time.

Keys are never written to disk: OpenSSL reads them through a memory file.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from fast.errors import InvalidConfig
from fast.files import Stamp, stamp_of

log = structlog.get_logger()

#: PEM, or the file that holds it.
Pem = bytes | Path

_CHECK_SECONDS = 10.0  # authorities and certificates are renewed long before they end


class ClientTLS:
    """The TLS context for connections to the API server, made again when its files change.

    Open connections keep the context that they were made with.
    """

    def __init__(
        self, *, ca: Pem | None = None, insecure: bool = False, certificate: Pem = b"", key: Pem = b""
    ) -> None:
        """Read the files.

        Args:
            ca: Certificate authorities to trust; None trusts the system's.
            insecure: Trust any server certificate (``insecure-skip-tls-verify``).
            certificate: A client certificate chain; empty for none.
            key: Its private key, not encrypted.

        Raises:
            InvalidConfig: A file cannot be read, bad PEM, or a key that does not belong to the certificate.
        """
        self._ca, self._insecure, self._certificate, self._key = ca, insecure, certificate, key
        self._files = tuple(item for item in (ca, certificate, key) if isinstance(item, Path))
        self._read = self._versions()
        self._looked_at = time.monotonic()
        self._context = self._make()

    def context(self) -> ssl.SSLContext:
        """Give the context for a new request; checks the files for changes every 10 seconds."""
        if self._files and time.monotonic() - self._looked_at >= _CHECK_SECONDS:
            self.look()
        return self._context

    def has_other_than(self, context: ssl.SSLContext | bool) -> bool:
        """Check the files now; whether a request that failed with ``context`` can be retried with another one."""
        if self._context is context:
            self.look()
        return self._context is not context

    def look(self) -> None:
        """Check the files now; files that cannot be used leave the context as it is."""
        self._looked_at = time.monotonic()
        versions = self._versions()  # taken before reading: a change in between is seen next time
        if versions == self._read:
            return
        try:
            self._context = self._make()
        except InvalidConfig as error:  # half of them replaced so far; what we have may still do
            log.warning("changed TLS files cannot be used", error=str(error))
            return
        self._read = versions
        log.info("TLS files read again", files=[*map(str, self._files)])

    def _versions(self) -> tuple[Stamp | None, ...]:
        return tuple(map(stamp_of, self._files))

    def _make(self) -> ssl.SSLContext:
        return _client_context(
            ca=None if self._ca is None else read_pem(self._ca, "certificate-authority"),
            insecure=self._insecure,
            certificate=read_pem(self._certificate, "client-certificate"),
            key=read_pem(self._key, "client-key"),
        )


def read_pem(source: Pem, what: str) -> bytes:
    """Give the PEM; InvalidConfig, naming the file and ``what`` it is, if it cannot be read."""
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise InvalidConfig(f"{what}: {source}: {error.strerror}") from error


def _client_context(*, ca: bytes | None, insecure: bool, certificate: bytes, key: bytes) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=ca.decode() if ca is not None else None)
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        raise InvalidConfig(f"the certificate authority is not a PEM certificate: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Kubernetes' own CAs, kubeadm's among them, lack the key identifiers that OpenSSL's strict mode requires.
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
