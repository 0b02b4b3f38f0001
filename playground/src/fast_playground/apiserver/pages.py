"""Lists, page by page, over one consistent state. Reads only."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import msgspec

from fast_playground.apiserver.registry import Kind
from fast_playground.apiserver.selectors import Selector
from fast_playground.apiserver.status import bad_request
from fast_playground.apiserver.storage import Record, Store


@dataclass(frozen=True)
class Page:
    """Some objects of a list.

    Attributes:
        records: They.
        version: The state they are of.
        token: Where the next page begins; empty if there is none.
        remaining: How many come after; None if nobody counted.
    """

    records: list[Record]
    version: int
    token: str = ""
    remaining: int | None = None


def list_page(
    store: Store,
    kind: Kind,
    namespace: str | None,
    selector: Selector,
    *,
    limit: int = 0,
    token: str = "",
    version: int | None = None,
) -> Page:
    """Read some objects in the order of their keys.

    Args:
        store: Where they live.
        kind: Of what.
        namespace: Where; None: everywhere.
        selector: Which.
        limit: How many at most; 0: all.
        token: Where the page before ended.
        version: The state to show; None: the newest, or that of the page before.

    Raises:
        ApiError: 400 for a bad token, 410 if its state is no longer kept.
    """
    start = ""
    if token:
        version, start = _read_token(token)
    prefix = f"{namespace}/" if namespace else ""
    found: list[Record] = []
    bucket = store.bucket(kind.storage)
    shown = store.version if version is None else version
    last = ""
    for key, record in bucket.scan(prefix, start, version):
        if selector and not selector.matches(record.decode()):
            continue
        if limit and len(found) == limit:
            remaining = None if selector else bucket.count(prefix, key, version)
            return Page(found, shown, _make_token(shown, last), remaining)
        found.append(record)
        last = key
    return Page(found, shown)


def _make_token(version: int, last: str) -> str:
    """A page's end as a ``continue`` token, in kube-apiserver's own form."""
    text = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": version, "start": last + "\0"})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _read_token(token: str) -> tuple[int, str]:
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        read = msgspec.json.decode(text)
        return int(read["rv"]), str(read["start"])
    except (binascii.Error, msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
