"""Certificates that are renewed while we run: real handshakes with a server whose certificates are swapped."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.nasty_server import nasty_server, status
from fast.api.resources import IPENDPOINTS
from fast.errors import Unauthorized, Unavailable
from fast.kube import ClusterConfig, KubeClient
from fast.kube import tls as module
from fast.kube.tls import ClientTLS
from fast_playground.apiserver.access.certificates import Authority


class Place:
    """A directory of certificates as kubelet fills it: a link leads to the version of now."""

    def __init__(self, tmp_path: Path) -> None:
        self._path = tmp_path
        self._numbers: Iterator[int] = iter(range(1000))
        self.directory = tmp_path / "now"
        self.tls = {name: self.directory / name for name in ("ca", "certificate", "key")}

    def authority(self, name: str) -> Authority:
        return Authority(self._path / name)

    def swap(self, **content: bytes) -> None:
        """Put all files in place at once; those that are not named stay as they are."""
        fresh = self._path / f"version-{next(self._numbers)}"
        fresh.mkdir()
        for name, path in self.tls.items():
            (fresh / name).write_bytes(content[name] if name in content else path.read_bytes())
        link = self._path / "next"
        link.symlink_to(fresh)
        os.rename(link, self.directory)

    def swap_client(self, authority: Authority, name: str, **more: bytes) -> None:
        issued = authority.issue_client(name)
        self.swap(certificate=issued.certificate_pem, key=issued.key_pem, **more)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@asynccontextmanager
async def serving(place):
    """A server under a first authority, and a client that knows it."""
    first = place.authority("first")
    place.swap_client(first, "old", ca=first.ca_pem)
    context = first.server_context()
    tls = ClientTLS(**place.tls)
    async with nasty_server(tls=context) as nasty, KubeClient(ClusterConfig(nasty.url, tls=tls)) as client:
        await client.get(IPENDPOINTS, "a")
        yield first, context, nasty, client


def rotate(place, context):
    """Give the server a certificate of a second authority."""
    second = place.authority("second")
    second.server_context()  # makes its files
    context.load_cert_chain(place._path / "second" / "server.crt", place._path / "second" / "server.key")
    return second


async def test_a_new_certificate_authority_is_trusted_at_the_first_handshake_that_needs_it(place):
    async with serving(place) as (_, context, nasty, client):
        place.swap(ca=rotate(place, context).ca_pem)
        nasty.cut()
        await client.get(IPENDPOINTS, "a")


async def test_a_server_of_another_authority_stays_refused_while_the_files_are_as_they_were(place):
    async with serving(place) as (_, context, nasty, client):
        rotate(place, context)
        nasty.cut()
        seen = len(nasty.seen)
        with pytest.raises(Unavailable, match="not trusted"):
            await client.get(IPENDPOINTS, "a")
        assert len(nasty.seen) == seen


async def test_a_renewed_client_certificate_is_shown_once_the_old_one_was_refused(place):
    async with serving(place) as (first, _, nasty, client):
        nasty.answer = lambda seen: None if seen.client == "new" else (401, status(401, "Unauthorized"))
        with pytest.raises(Unauthorized):
            await client.get(IPENDPOINTS, "a")
        place.swap_client(first, "new")
        await client.get(IPENDPOINTS, "a")
    assert [seen.client for seen in nasty.seen][-2:] == ["old", "new"]


async def test_a_renewed_client_certificate_is_shown_soon_before_the_old_one_ends(place, monkeypatch):
    async with serving(place) as (first, _, nasty, client):
        place.swap_client(first, "new")
        await client.get(IPENDPOINTS, "a")
        monkeypatch.setattr(module, "_CHECK_SECONDS", 0.0)
        await client.get(IPENDPOINTS, "a")
    assert [seen.client for seen in nasty.seen] == ["old", "old", "new"]


async def test_a_certificate_whose_key_is_not_there_yet_is_not_taken(place, monkeypatch):
    monkeypatch.setattr(module, "_CHECK_SECONDS", 0.0)
    async with serving(place) as (first, _, nasty, client):
        issued = first.issue_client("new")
        for half in ({"certificate": issued.certificate_pem}, {"key": issued.key_pem}):
            place.swap(**half)
            await client.get(IPENDPOINTS, "a")
    assert [seen.client for seen in nasty.seen] == ["old", "old", "new"]


def test_the_files_are_not_looked_at_for_every_request(place, monkeypatch):
    authority = place.authority("first")
    place.swap_client(authority, "old", ca=authority.ca_pem)
    tls = ClientTLS(**place.tls)
    before = tls.context()
    place.swap_client(authority, "new")
    assert tls.context() is before
    later = time.monotonic() + 11
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert tls.context() is not before
