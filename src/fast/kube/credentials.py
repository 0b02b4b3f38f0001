"""Credentials of requests: fixed tokens, token files that rotate, exec plugins. No HTTP, no kubeconfig."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from fast.errors import InvalidConfig, NoCredentials
from fast.files import Stamp, stamp_of
from fast.kube.tls import ClientTLS, Pem

log = structlog.get_logger()

_TOKEN_CHECK_SECONDS = 10.0  # kubelet rotates tokens long before they expire; a stat is cheap
_EXPIRY_SLACK_SECONDS = 30.0  # a token must outlive the request that carries it
_EXEC_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Grant:
    """The credentials of one request: an ``Authorization`` header, TLS with a client certificate, or neither."""

    authorization: str = ""
    tls: ClientTLS | None = None


class Credentials(Protocol):
    """Gives grants, and learns that the last one was refused."""

    async def grant(self) -> Grant:
        """Give the next request's grant; NoCredentials if there is none now."""

    def refuse(self) -> None:
        """Note that the server answered 401, so the next grant must not come from a cache."""


@dataclass(slots=True)
class Fixed:
    """A token that never changes, or no token (anonymous, or a client certificate that the TLS context holds)."""

    token: str = ""

    async def grant(self) -> Grant:
        """Give the token."""
        return Grant(f"Bearer {self.token}" if self.token else "")

    def refuse(self) -> None:
        """Do nothing: there is no other token."""


@dataclass(slots=True)
class TokenFile:
    """A token in a file that is replaced at run time, as kubelet does for ServiceAccounts."""

    path: Path
    _authorization: str = ""
    _stamp: Stamp | None = None
    _checked: float = float("-inf")

    async def grant(self) -> Grant:
        """Give the file's token; checks the file every 10 seconds and after a refusal.

        Raises:
            NoCredentials: The file cannot be read, or is empty, and no earlier token is known.
        """
        now = time.monotonic()
        if now - self._checked >= _TOKEN_CHECK_SECONDS:
            self._read()
            self._checked = now
        return Grant(self._authorization)

    def refuse(self) -> None:
        """Read the file before the next grant."""
        self._checked = float("-inf")
        self._stamp = None

    def _read(self) -> None:
        try:
            stamp = stamp_of(self.path)
            if stamp is not None and stamp == self._stamp:
                return
            token = self.path.read_text(encoding="ascii").strip()
            if not token:
                raise ValueError("it is empty")
        except (OSError, ValueError) as error:
            problem = error.strerror if isinstance(error, OSError) else str(error)
            if not self._authorization:
                raise NoCredentials(f"token file {self.path}: {problem}") from error
            # the file may be between two versions; the current token may still be valid
            log.warning("token file cannot be used", path=str(self.path), problem=problem)
            return
        self._authorization, self._stamp = f"Bearer {token}", stamp


class _ExecStatus(msgspec.Struct, rename="camel"):
    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""
    expiration_timestamp: str = ""


class _ExecCredential(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    status: _ExecStatus | None = None


@dataclass(slots=True)
class ExecPlugin:
    """A command that prints an ExecCredential (client.authentication.k8s.io/v1); its answer is kept until it expires.

    Attributes:
        command: The program; searched on PATH unless it holds a ``/``.
        args: Its arguments.
        environment: Variables added to our own.
        api_version: What the kubeconfig says; the plugin's answer must say the same.
        cluster: The ``spec.cluster`` of KUBERNETES_EXEC_INFO if the kubeconfig asks for it (``provideClusterInfo``).
        install_hint: Shown if the command does not exist.
        tls_factory: Makes TLS contexts of a certificate and key in PEM, for plugins that answer with these.
    """

    command: str
    args: Sequence[str]
    environment: Mapping[str, str]
    api_version: str
    tls_factory: TLSFactory
    cluster: Mapping[str, object] | None = None
    install_hint: str = ""
    _cached: Grant | None = None
    _expires: float = float("inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def grant(self) -> Grant:
        """Give the cached answer, or run the plugin.

        Raises:
            NoCredentials: The plugin is missing, failed, or printed no usable ExecCredential.
        """
        async with self._lock:
            if self._cached is None or time.monotonic() > self._expires - _EXPIRY_SLACK_SECONDS:
                status = await self._run()
                self._cached = self._grant_of(status)
                self._expires = self._expiry_of(status)
            return self._cached

    def refuse(self) -> None:
        """Run the plugin again for the next grant."""
        self._cached = None

    def _grant_of(self, status: _ExecStatus) -> Grant:
        tls = None
        if status.client_certificate_data:
            try:
                tls = self.tls_factory(
                    certificate=status.client_certificate_data.encode(), key=status.client_key_data.encode()
                )
            except InvalidConfig as error:
                raise NoCredentials(f"exec plugin {self.command}: {error}") from error
        if tls is None and not status.token:
            raise NoCredentials(f"exec plugin {self.command} gave neither a token nor a client certificate")
        return Grant(f"Bearer {status.token}" if status.token else "", tls)

    def _expiry_of(self, status: _ExecStatus) -> float:
        """Monotonic seconds, which a clock change does not affect; infinite if the plugin names no time."""
        if not status.expiration_timestamp:
            return float("inf")
        try:
            expires = datetime.fromisoformat(status.expiration_timestamp)
            return time.monotonic() + expires.timestamp() - time.time()
        except ValueError as error:
            raise NoCredentials(
                f"exec plugin {self.command}: expirationTimestamp {status.expiration_timestamp!r} "
                "is not an RFC 3339 time"
            ) from error

    async def _run(self) -> _ExecStatus:
        spec: dict[str, object] = {"interactive": False}
        if self.cluster is not None:
            spec["cluster"] = self.cluster
        info = {"apiVersion": self.api_version, "kind": "ExecCredential", "spec": spec}
        environment = {
            **os.environ,
            **self.environment,
            "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode(),
        }
        stdout = await self._output(environment)
        try:
            answer = msgspec.json.decode(stdout, type=_ExecCredential)
        except msgspec.MsgspecError as error:
            raise NoCredentials(
                f"exec plugin {self.command} did not print an ExecCredential: {error}"
            ) from error
        if answer.api_version != self.api_version or answer.status is None:
            raise NoCredentials(
                f"exec plugin {self.command} answered apiVersion {answer.api_version!r}"
                f"{' without a status' if answer.status is None else ''}; the kubeconfig says {self.api_version!r}"
            )
        return answer.status

    async def _output(self, environment: Mapping[str, str]) -> bytes:
        """Run the command, with a time limit."""
        try:
            process = await asyncio.create_subprocess_exec(
                self.command,
                *self.args,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            hint = f"\n{self.install_hint}" if self.install_hint else ""
            raise NoCredentials(f"exec plugin {self.command}: {error.strerror}{hint}") from error
        try:
            async with asyncio.timeout(_EXEC_TIMEOUT_SECONDS):
                stdout, stderr = await process.communicate()
        except TimeoutError as error:
            raise NoCredentials(
                f"exec plugin {self.command} took over {_EXEC_TIMEOUT_SECONDS:.0f} s"
            ) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            said = stderr.decode(errors="replace").strip()[-500:]
            raise NoCredentials(f"exec plugin {self.command} ended with status {process.returncode}: {said}")
        return stdout


class TLSFactory(Protocol):
    """Makes TLS contexts, which trust the cluster's authority, from a client certificate and key in PEM."""

    def __call__(self, *, certificate: Pem, key: Pem) -> ClientTLS:
        """Make the factory; InvalidConfig if the PEM is bad."""
