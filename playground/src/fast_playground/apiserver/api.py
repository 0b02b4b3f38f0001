"""The types that the server's parts exchange; no logic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fast_playground.apiserver.kinds import GVR
from fast_playground.apiserver.status import ApiError

__all__ = ["ApiError", "Change", "Object", "Options", "User"]

Object = dict[str, Any]
#: (ADDED | MODIFIED | DELETED, resource, object). The object is the receiver's own.
Change = tuple[str, GVR, Object]


@dataclass(frozen=True)
class User:
    """Who sends a request. ``extra``: other claims of the credentials, such as the node that a token is bound to."""

    name: str
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


#: The server's own controllers.
SERVER = User("system:apiserver", ("system:masters",))


@dataclass(frozen=True)
class Options:
    """Options of a write.

    Attributes:
        dry_run: Check and answer, but store nothing.
        field_validation: ``Ignore``, ``Warn`` or ``Strict``, for fields the schema does not know.
        manager: Who writes; owns fields in server-side apply.
        force: Server-side apply takes over fields that other managers own.
        user: Who asks for it.
        warnings: What the answer should warn about; appended to.
    """

    dry_run: bool = False
    field_validation: str = "Warn"
    manager: str = "unknown"
    force: bool = False
    user: User = SERVER
    warnings: list[str] = field(default_factory=list)
