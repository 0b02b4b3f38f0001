"""The view of this node's pods: the watch's, or a live read where that is doubted."""

import asyncio
from types import SimpleNamespace

import pytest

from fast.agent.cni.node_pods import NodePods
from fast.api.ipendpoint import PodRef
from fast.errors import NotFound


class Server:
    """A client that knows some objects, and counts what it is asked."""

    def __init__(self, **objects):
        self.objects, self.asked = objects, 0

    async def get(self, resource, name, namespace=None):
        self.asked += 1
        if name not in self.objects:
            raise NotFound(f"{name} not found")
        return self.objects[name]


def view(server, **seen):
    pods = SimpleNamespace(cache={f"ns/{name}": pod for name, pod in seen.items()})
    return NodePods(server, pods, SimpleNamespace(cache={}))


def test_what_the_watch_shows_costs_no_request():
    server = Server()
    assert asyncio.run(view(server, a="seen").pod("ns", "a")) == "seen"
    assert server.asked == 0


@pytest.mark.parametrize(("objects", "expected"), [({"a": "live"}, "live"), ({}, None)])
def test_what_the_watch_does_not_show_yet_is_read_live(objects, expected):
    assert asyncio.run(view(Server(**objects)).pod("ns", "a")) == expected


def test_what_is_doubted_is_read_live_once():
    server = Server(a="live")
    pods = view(server, a="seen")
    pods.doubt(PodRef("ns", "a"))
    assert [asyncio.run(pods.pod("ns", "a")) for _ in range(2)] == ["live", "seen"]


def test_a_namespace_is_read_live_where_the_watch_does_not_show_it():
    pods = view(Server(ns="live"))
    assert asyncio.run(pods.namespace("ns")) == "live"
    assert asyncio.run(pods.namespace("other")) is None
