"""Measures the embedded API server under load: watchers and writes, long lists, and a watcher that does not read.

Runs a server of its own on the loopback, with Fast's CRDs. CPU time and memory are those of the server's process.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import socket
import ssl
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import click
import yaml

from fast_playground.apiserver.kinds import CUSTOM_RESOURCE_DEFINITIONS, GVR
from fast_playground.apiserver.registry import Registry
from fast_playground.apiserver.resource_verbs import Verbs
from fast_playground.apiserver.storage import Store, Transaction

CRDS = Path(__file__).parents[2] / "deploy" / "crds"
RECORDS = GVR("sample.fast.io", "v1alpha1", "ipendpoints")
PATH = "/apis/sample.fast.io/v1alpha1/ipendpoints"
SERVER = "from fast_playground.apiserver.fast_apiserver import main; main()"
VERSION = re.compile(rb'"type":"(?:ADDED|MODIFIED)".*?"resourceVersion":"(\d+)"')
CHUNK = re.compile(rb"\r\n[0-9a-fA-F]+\r\n")
WRITERS = 256
GROUP = 5000  # records per transaction of `fill`


def record(number: int) -> dict[str, Any]:
    """Return an IpEndpoint as an agent writes it."""
    name = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    node = number % 100
    return {
        "apiVersion": RECORDS.group_version,
        "kind": "IpEndpoint",
        "metadata": {"name": name},
        "spec": {
            "pool": "default-ips",
            "pod": {
                "namespace": "default",
                "name": f"web-7d9c5b8f6-{number:05x}",
                "uid": f"0b1d8a52-7a6c-4d9e-9f43-{number:012x}",
            },
            "containerID": f"{number:064x}",
            "interface": "eth0",
            "node": f"node-{node}",
            "bootID": "5c0f6b9e-58b0-4b6a-8f6e-1d2a3b4c5d6e",
        },
    }


async def fill(data: Path, count: int) -> None:
    """Store the CRDs and ``count`` records, without a server; each as the server itself would have stored it."""
    store = Store(data / "objects.sqlite")
    writing = asyncio.create_task(store.run())
    verbs = Verbs(store, Registry())
    for path in sorted(CRDS.glob("*.yaml")):
        await verbs.create(CUSTOM_RESOURCE_DEFINITIONS, yaml.safe_load(path.read_text()))
    if count:
        made = await verbs.create(RECORDS, record(0))
    for start in range(1, count, GROUP):

        def put(tx: Transaction, start: int = start) -> None:
            for number in range(start, min(start + GROUP, count)):
                new = record(number)
                obj = made | {"metadata": made["metadata"] | new["metadata"], "spec": new["spec"]}
                del obj["kind"], obj["apiVersion"]
                tx.put(verbs.kind(RECORDS).storage, new["metadata"]["name"], obj)

        await store.write(put)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    store.close()


class Running:
    """A server's process and a connection to it."""

    def __init__(self, pid: int, kubeconfig: Path) -> None:
        read = yaml.safe_load(kubeconfig.read_text())
        cluster = read["clusters"][0]["cluster"]
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.pid = pid
        self.url: str = cluster["server"]
        self.tls = ssl.create_default_context(cadata=ca)
        self.headers = {"Authorization": f"Bearer {read['users'][0]['user']['token']}"}
        self.session = aiohttp.ClientSession(
            self.url, connector=aiohttp.TCPConnector(ssl=self.tls, limit=0), headers=self.headers
        )

    def cpu_seconds(self) -> float:
        """Return the CPU time that the server has used, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        """Return the server's resident memory, in MiB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def descriptors(self) -> int:
        """Return how many files and connections the server has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    async def get(self, path: str, **query: str) -> Any:
        """Send a GET and return the decoded answer."""
        async with self.session.get(path, params=query) as response:
            response.raise_for_status()
            return json.loads(await response.read())

    async def send(self, method: str, path: str, obj: Any) -> Any:
        """Send a request that writes."""
        async with self.session.request(method, path, json=obj) as response:
            text = await response.read()
            assert response.ok, text
            return json.loads(text)


@contextlib.asynccontextmanager
async def serving(data: Path) -> AsyncIterator[Running]:
    """Run a server on the data of a directory."""
    kubeconfig = data / "kubeconfig"
    argv = [sys.executable, "-c", SERVER]
    argv += ["--data-dir", str(data), "--listen", "127.0.0.1:0", "--kubeconfig-out", str(kubeconfig)]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, env=env)
    try:
        assert process.stdout is not None
        assert b"ready" in await process.stdout.readline(), "the server did not start"
        running = Running(process.pid, kubeconfig)
        try:
            yield running
        finally:
            await running.session.close()
    finally:
        process.kill()
        await process.wait()


class Watcher(asyncio.Protocol):
    """Watches the records over its own plain connection, so that the client costs little.

    Keeps a checksum of all events and, if asked, every version.
    """

    def __init__(self, request: bytes, count: int, *, parse: bool) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.checksum = 0
        self.versions: list[int] = []
        self._request, self._left, self._parse = request, count, parse
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if not self.begun.done():
            head, end, rest = self._rest.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 200 "), head
            self._rest = b"\r\n" + rest
            self.begun.set_result(None)
        lines, end, rest = self._rest.rpartition(b"}\n")
        if not end:
            return
        self._rest = rest
        lines = CHUNK.sub(b"", lines + end)
        self._left -= lines.count(b"\n")
        self.checksum = zlib.crc32(lines, self.checksum)
        if self._parse:
            self.versions += map(int, VERSION.findall(lines))
        if self._left <= 0 and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        for waiting in (self.begun, self.done):
            if not waiting.done():
                waiting.set_exception(ConnectionError("the watch ended early"))


async def open_watchers(server: Running, version: str, count: int, watchers: int) -> list[Watcher]:
    """Begin to watch; each expects ``count`` events."""
    host, _, port = server.url.removeprefix("https://").rpartition(":")
    head = f"GET {PATH}?watch=1&resourceVersion={version} HTTP/1.1\r\nHost: {host}\r\n"
    request = f"{head}Authorization: {server.headers['Authorization']}\r\n\r\n".encode()
    made = []
    for number in range(watchers):
        watcher = Watcher(request, count, parse=number == 0)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda it=watcher: it, host, int(port), ssl=server.tls)  # type: ignore[misc]
        made.append(watcher)
    await asyncio.gather(*(watcher.begun for watcher in made))
    return made


async def write_paced(server: Running, count: int, rate: float) -> tuple[list[int], float]:
    """Create records at a rate (per second); gives their versions, sorted, and the seconds it took."""
    versions: list[int] = []
    began = time.monotonic()
    numbers = iter(range(count))

    async def write() -> None:
        for number in numbers:
            await asyncio.sleep(began + number / rate - time.monotonic())
            made = await server.send("POST", PATH, record(number))
            versions.append(int(made["metadata"]["resourceVersion"]))

    await asyncio.gather(*(write() for _ in range(WRITERS)))
    return sorted(versions), time.monotonic() - began


async def measure_watches(watchers: int, rate: float, seconds: float) -> str:
    """Write while many watch; every watcher must get every event, in order."""
    with tempfile.TemporaryDirectory(prefix="fast-load-") as place:
        await fill(Path(place), 0)
        async with serving(Path(place)) as server:
            version = (await server.get(PATH))["metadata"]["resourceVersion"]
            count = int(rate * seconds)
            watching = await open_watchers(server, version, count, watchers)
            cpu = server.cpu_seconds()
            versions, took = await write_paced(server, count, rate)
            ended = time.monotonic()
            await asyncio.gather(*(watcher.done for watcher in watching))
            behind = time.monotonic() - ended
            cpu = server.cpu_seconds() - cpu
            first = watching[0]
            assert first.versions == versions, "the first watcher did not get every event once and in order"
            same = {watcher.checksum for watcher in watching}
            assert same == {first.checksum}, "a watcher got other events than the first watcher"
            return (
                f"{watchers} watchers, {count / took:.0f} writes/s for {took:.1f} s: {count * watchers:,} events,"
                f" all whole and in order, the last one {behind:.2f} s after the last write; server:"
                f" {cpu / took:.0%} of a CPU, {server.rss_mib():.0f} MiB"
            )


async def measure_list(count: int, limit: int = 500) -> str:
    """List many records in pages."""
    with tempfile.TemporaryDirectory(prefix="fast-load-") as place:
        await fill(Path(place), count)
        async with serving(Path(place)) as server:
            cpu, began, names, token = server.cpu_seconds(), time.monotonic(), set[str](), ""
            size = 0
            while True:
                async with server.session.get(
                    PATH, params={"limit": str(limit), "continue": token}
                ) as response:
                    raw = await response.read()
                size += len(raw)
                page = json.loads(raw)
                names.update(item["metadata"]["name"] for item in page["items"])
                token = page["metadata"].get("continue", "")
                if not token:
                    break
            cpu, took = server.cpu_seconds() - cpu, time.monotonic() - began
            assert len(names) == count, f"{len(names)} of {count} records"
            return (
                f"{count:,} IpEndpoints ({size / 1e6:.0f} MB) in pages of {limit}: {cpu:.2f} s of server CPU,"
                f" {took:.1f} s with the client's; server: {server.rss_mib():.0f} MiB"
            )


async def measure_slow(size: int = 200_000, most: int = 400) -> str:
    """Write large objects while one watcher reads nothing. The server must cut it off and free its memory."""
    path = "/api/v1/namespaces/default/configmaps"
    with tempfile.TemporaryDirectory(prefix="fast-load-") as place:
        await fill(Path(place), 0)
        async with serving(Path(place)) as server:
            obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}}
            made = await server.send("POST", path, obj)
            writer = await _open_slow(server, made["metadata"]["resourceVersion"])
            rss, began, wrote = server.rss_mib(), time.monotonic(), 0
            connections = server.descriptors()
            while server.descriptors() >= connections and wrote < most:
                data = {"data": {"x": f"{wrote:06}" + "x" * size}}
                await server.send("PUT", f"{path}/large", obj | data)
                wrote += 1
                await asyncio.sleep(0.1)
            took = time.monotonic() - began
            cut = server.descriptors() < connections
            writer.transport.abort()
            assert cut, f"a watcher that reads nothing was not cut off in {took:.0f} s"
            return (
                f"a watcher that reads nothing was cut off after {took:.1f} s and {wrote * size / 1e6:.0f} MB of"
                f" events; the server grew by {server.rss_mib() - rss:.0f} MiB, the log of events included"
            )


async def _open_slow(server: Running, version: str) -> asyncio.StreamWriter:
    """Begin a watch over a connection with small buffers, and then stop reading."""
    host, _, port = server.url.removeprefix("https://").rpartition(":")
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect((host, int(port)))
    plain.setblocking(False)
    # A full reader stops reading, so asyncio does not notice that the connection ended.
    _, writer = await asyncio.open_connection(sock=plain, ssl=server.tls, server_hostname=host, limit=4096)
    query = f"?watch=1&resourceVersion={version}"
    head = f"GET /api/v1/configmaps{query} HTTP/1.1\r\nHost: {host}\r\n"
    writer.write(f"{head}Authorization: {server.headers['Authorization']}\r\n\r\n".encode())
    await asyncio.sleep(1)
    return writer


@click.command()
@click.option("--watchers", default=200, show_default=True, help="Clients that watch.")
@click.option("--rate", default=500.0, show_default=True, help="Writes per second.")
@click.option("--seconds", default=10.0, show_default=True, help="How long to write.")
@click.option("--records", default=100_000, show_default=True, help="IpEndpoints to list.")
@click.argument("what", nargs=-1, type=click.Choice(["watches", "list", "slow"]))
def main(watchers: int, rate: float, seconds: float, records: int, what: tuple[str, ...]) -> None:
    """Run the measurements that are asked for; without arguments, all."""
    wanted = what or ("watches", "list", "slow")
    if "watches" in wanted:
        click.echo(asyncio.run(measure_watches(watchers, rate, seconds)))
    if "list" in wanted:
        click.echo(asyncio.run(measure_list(records)))
    if "slow" in wanted:
        click.echo(asyncio.run(measure_slow()))


if __name__ == "__main__":
    main()
