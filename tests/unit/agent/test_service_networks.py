"""The networks of Services, as far as the API server tells."""

from ipaddress import ip_network

import pytest

from fakes.nasty_server import nasty_server, status
from fast.agent.sync.service_networks import read_service_networks
from fast.kube import ClusterConfig, KubeClient


async def read(code, body):
    async with nasty_server() as nasty, KubeClient(ClusterConfig(nasty.url)) as client:
        nasty.answer = lambda seen: (code, body) if "servicecidrs" in seen.path else None
        return await read_service_networks(client)


async def test_every_readable_network_of_every_servicecidr_is_given():
    items = [
        {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12", "fd00:96::/108"]}},
        {"metadata": {"name": "odd"}, "spec": {"cidrs": ["nonsense"]}},
        {"metadata": {"name": "empty"}},
    ]
    found = await read(200, {"metadata": {"resourceVersion": "1"}, "items": items})
    assert found == (ip_network("10.96.0.0/12"), ip_network("fd00:96::/108"))


@pytest.mark.parametrize(("code", "reason"), [(404, "NotFound"), (403, "Forbidden")])
async def test_a_server_that_does_not_tell_leaves_them_out(code, reason):
    assert await read(code, status(code, reason)) == ()
