"""The embedded API server under load: a small run of its benchmark, and a watcher that takes nothing."""

import asyncio
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from fast_playground.apiserver import streaming
from fast_playground.apiserver.kinds import CONFIG_MAPS
from fast_playground.apiserver.runtime import ApiServer

_BENCH = Path(__file__).parents[2] / "bench" / "apiserver" / "load.py"


def test_many_watchers_get_every_event_in_order_and_long_lists_come_in_pages():
    flags = ["--watchers", "20", "--rate", "100", "--seconds", "1", "--records", "2000", "watches", "list"]
    done = subprocess.run([sys.executable, _BENCH, *flags], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"all whole and in order" in done.stdout


@pytest.fixture
async def server(tmp_path):
    server = ApiServer(tmp_path)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    await server.start([listening])
    try:
        server.write_admin_kubeconfig(tmp_path / "kubeconfig", "https://localhost")
        yield server, listening.getsockname()[1]
    finally:
        await server.stop()


async def _watch_without_reading(server, port: int) -> asyncio.StreamWriter:
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect(("127.0.0.1", port))
    plain.setblocking(False)
    tls = ssl.create_default_context(cadata=server.authority.ca_pem.decode())
    _, writer = await asyncio.open_connection(sock=plain, ssl=tls, server_hostname="localhost", limit=4096)
    token = server.tokens.ensure_identity("fast-admin", ["system:masters"])
    head = "GET /api/v1/configmaps?watch=1 HTTP/1.1\r\nHost: localhost\r\n"
    writer.write(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
    return writer


async def test_a_watcher_that_reads_nothing_is_cut_off(server, monkeypatch):
    monkeypatch.setattr(streaming, "WRITE_SECONDS", 0.5)
    served, port = server
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large", "namespace": "default"}}
    await served.verbs.create(CONFIG_MAPS, obj)
    log = served.store.bucket(served.verbs.kind(CONFIG_MAPS).storage).log
    before = log.watchers
    writer = await _watch_without_reading(served, port)
    try:
        async with asyncio.timeout(60):
            while log.watchers == before:  # noqa: ASYNC110 (the log tells nobody)
                await asyncio.sleep(0.01)
            number = 0
            while log.watchers > before:
                number += 1
                await served.verbs.update(CONFIG_MAPS, obj | {"data": {"x": f"{number}" + "x" * 500_000}})
                await asyncio.sleep(0.01)
    finally:
        writer.transport.abort()
