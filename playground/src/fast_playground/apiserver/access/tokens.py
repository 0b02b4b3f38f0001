"""Bearer tokens and whose they are, in one file of the data directory. Nothing about what they allow."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fast.files import stamp_of, write_atomically
from fast_playground.apiserver.api import User

MASTERS = "system:masters"
#: What a token that is bound to a node says about its bearer, as Kubernetes calls it.
NODE_NAME = "authentication.kubernetes.io/node-name"
AUTHENTICATED = "system:authenticated"
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"


class _Identity(msgspec.Struct, frozen=True):
    """One token: who its bearer is, and the node it is bound to if any (a DaemonSet's account has one on each)."""

    token: str
    name: str
    groups: tuple[str, ...]
    node: str = ""


class TokenStore:
    """Tokens and identities, persisted.

    Several processes may use one file at a time: the playground issues tokens while the server runs, and the server
    reads the file again whenever it was replaced.

    Args:
        path: The file, mode 0600; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_token: dict[str, User] = {}
        self._seen: tuple[int, int, int] | None = None

    def ensure_identity(self, name: str, groups: Sequence[str] = (), *, node: str = "") -> str:
        """Give the token of an identity; the same one every time, and durable.

        Args:
            name: The user's name, as ``admin`` or ``system:node:n1``.
            groups: The user's groups. If they changed, the token stays and means the new ones.
            node: Binds the token to a node, which admission policies then see. Each node has its own token.
        """
        with _locked(self._path.with_suffix(".lock")):
            identities = self._read()
            found = next((i for i in identities if (i.name, i.node) == (name, node)), None)
            token = found.token if found else secrets.token_urlsafe(32)
            wanted = _Identity(token, name, tuple(groups), node)
            if found != wanted:
                kept = [*(i for i in identities if i is not found), wanted]
                write_atomically(self._path, msgspec.json.format(msgspec.json.encode(kept)), 0o600)
            return token

    def ensure_service_account(self, namespace: str, name: str, *, node: str = "") -> str:
        """Give a token of a ServiceAccount (``system:serviceaccount:NAMESPACE:NAME``, with the groups it has)."""
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        return self.ensure_identity(f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}", groups, node=node)

    def find_user(self, token: str) -> User | None:
        """Tell whose token this is; None if it is nobody's."""
        stamp = stamp_of(self._path)
        if stamp is not None and stamp != self._seen:
            self._seen = stamp
            self._by_token = {
                i.token: User(i.name, (*i.groups, AUTHENTICATED), {NODE_NAME: (i.node,)} if i.node else {})
                for i in self._read()
            }
        return self._by_token.get(token)

    def _read(self) -> list[_Identity]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[_Identity])
        except FileNotFoundError:
            return []


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file; the kernel releases it if the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
