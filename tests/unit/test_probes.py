"""What agent and controller serve for probes and Prometheus."""

import asyncio
import socket
import time

import aiohttp
import pytest
from prometheus_client import Counter

from fast import probes
from fast.errors import InvalidConfig
from fast.probes import ProbeServer, parse_listen_address

# Not "fast_…": other tests look at every metric of Fast.
_SCRAPES = Counter("probe_test_scrapes", "Scrapes that the test made.")


@pytest.fixture
async def served():
    """A server whose readiness is what the list says, and how to ask it."""
    problems = ["no contact"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = ProbeServer(f"127.0.0.1:{port}", lambda: "; ".join(problems), _SCRAPES.inc)
    await server.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def ask(path):
            async with session.get(path) as answer:
                return answer.status, await answer.text()

        yield problems, ask, port
    await server.stop()


async def test_readiness_is_refused_with_the_reason_until_there_is_none(served):
    problems, ask, _ = served
    assert await ask("/readyz") == (503, "no contact\n")
    problems.clear()
    assert await ask("/readyz") == (200, "ok\n")


async def test_a_process_that_is_not_ready_is_alive(served):
    _, ask, _ = served
    assert await ask("/healthz") == (200, "ok\n")


async def test_gauges_are_brought_up_to_date_before_a_scrape_shows_them(served):
    _, ask, _ = served
    status, text = await ask("/metrics")
    assert status == 200
    assert "probe_test_scrapes_total 1.0" in text
    assert "_created" not in text


async def test_an_address_that_is_taken_is_named(served):
    _, _, port = served
    with pytest.raises(InvalidConfig, match=f"cannot listen on 127.0.0.1:{port}"):
        await ProbeServer(f"127.0.0.1:{port}", str).start()


@pytest.mark.parametrize("text", ["", "9095", "localhost:", ":9095", "localhost:http", "localhost:70000"])
def test_what_is_no_listen_address_is_refused(text):
    with pytest.raises(InvalidConfig, match="HOST:PORT"):
        parse_listen_address(text)


def test_an_ipv6_host_stands_in_brackets():
    assert parse_listen_address("[::1]:9095") == ("::1", 9095)


class Served:
    """A server on a free port, with raw connections to it."""

    def __init__(self, **options):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.scrapes = 0
        self.server = ProbeServer(f"127.0.0.1:{self.port}", str, self._scraped, **options)
        self._writers = []

    def _scraped(self):
        self.scrapes += 1

    async def connect(self, *sent):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        for data in sent:
            writer.write(data)
        return reader

    async def get(self, path, *headers):
        lines = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Connection: close", *headers))
        reader = await self.connect(f"{lines}\r\n".encode())
        try:
            answer = await asyncio.wait_for(reader.read(), 10)
        except ConnectionResetError:  # closed with what was sent unread
            return None
        return int(answer.split()[1]) if answer else None

    async def __aenter__(self):
        await self.server.start()
        return self

    async def __aexit__(self, *_):
        for writer in self._writers:
            writer.close()
        await asyncio.wait_for(self.server.stop(), 5)


@pytest.mark.parametrize("sent", [b"G", b"GET /healthz HTTP/1.1\r\nX: "])
async def test_a_head_that_does_not_end_costs_its_connection_after_the_time_limit(monkeypatch, sent):
    monkeypatch.setattr(probes, "_HEAD_SECONDS", 0.1)
    async with Served() as served:
        reader = await served.connect(sent)
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_a_connection_that_says_nothing_ends_too(monkeypatch):
    monkeypatch.setattr(probes, "_IDLE_SECONDS", 0.1)
    async with Served() as served:
        assert await asyncio.wait_for((await served.connect()).read(), 5) == b""


async def test_idle_connections_of_others_keep_no_probe_of_the_node_out(monkeypatch):
    local = [False]
    monkeypatch.setattr(probes, "_is_local", lambda _: local[0])
    async with Served() as served:
        for _ in range(probes.MOST_CONNECTIONS):
            await served.connect(b"GET /healthz HTTP/1.1\r\nX: ")
        await asyncio.sleep(0.1)
        assert await served.get("/metrics") is None  # the next one is turned away
        local[0] = True
        assert await served.get("/healthz") == 200


async def test_a_place_that_becomes_free_is_given_again(monkeypatch):
    monkeypatch.setattr(probes, "MOST_CONNECTIONS", 1)
    async with Served() as served:
        for _ in range(5):
            assert await served.get("/healthz") == 200
            await asyncio.sleep(0.01)


async def test_many_scrapes_at_once_make_the_text_once_and_probes_do_not_wait_for_them():
    async with Served() as served:
        await served.get("/metrics")  # the first one imports and compiles
        await asyncio.sleep(probes._REUSE_SECONDS)
        served.scrapes, began = 0, time.monotonic()
        scrapes = [asyncio.create_task(served.get("/metrics")) for _ in range(30)]
        await asyncio.sleep(0.05)
        assert await served.get("/healthz") == 200
        assert time.monotonic() - began < 0.7
        assert await asyncio.gather(*scrapes) == [200] * 30
        assert served.scrapes <= 1 + (time.monotonic() - began) / probes._REUSE_SECONDS


async def test_a_flood_of_scrapes_is_answered_at_a_bounded_rate():
    async with Served() as served:
        answers, until = [], time.monotonic() + 1

        async def ask():
            while time.monotonic() < until:
                answers.append(await served.get("/metrics"))

        await asyncio.gather(*(ask() for _ in range(20)))
        assert set(answers) == {200}
        assert 20 <= len(answers) < 2 / probes._GAP_SECONDS + 20


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 401),
        (("Authorization: Bearer wrong",), 401),
        (("Authorization: Basic s3cret",), 401),
        (("Authorization: s3cret",), 401),
        (("Authorization: Bearer s3cret",), 200),
        (("authorization:Bearer s3cret",), 200),
    ],
)
async def test_with_a_token_only_who_has_it_sees_metrics_and_probes_need_none(tmp_path, headers, status):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    async with Served(metrics_token_file=token) as served:
        assert await served.get("/metrics", *headers) == status
        assert await served.get("/healthz") == 200
        token.write_text("")
        assert await served.get("/metrics", *headers) == 401
        token.unlink()
        assert await served.get("/metrics", *headers) == 401


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", 200),
        (b"GET /healthz?verbose HTTP/1.0\r\n\r\n", 200),
        (b"POST /healthz HTTP/1.1\r\n\r\n", 405),
        (b"GET /nowhere HTTP/1.1\r\n\r\n", 404),
        (b"GET /healthz\r\n\r\n", 400),
        (b"\xff\xfe \x00\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 400),
    ],
)
async def test_each_request_gets_the_status_that_http_has_for_it(sent, status):
    async with Served() as served:
        reader = await served.connect(sent)
        assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == str(status).encode()


async def test_a_connection_serves_several_requests():
    async with Served() as served:
        reader = await served.connect(b"GET /healthz HTTP/1.1\r\n\r\n" * 3)
        for _ in range(3):
            assert b"200" in await asyncio.wait_for(reader.readuntil(b"ok\n"), 5)
