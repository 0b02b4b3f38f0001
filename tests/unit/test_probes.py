"""What agent and controller serve for probes and Prometheus."""

import socket

import aiohttp
import pytest
from prometheus_client import Counter

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
