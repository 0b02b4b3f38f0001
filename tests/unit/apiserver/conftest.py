"""A real server for the tests of a module, with Fast's kinds and one more that uses all that a definition may say."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fast.api.crds import manifests
from unit.apiserver.process import Client, Server, running

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.org/v1/namespaces/default/widgets"

_SPEC = {
    "type": "object",
    "required": ["size"],
    "x-kubernetes-validations": [
        {"rule": "self.size >= self.least", "message": "size must not be below least"},
        {"rule": "self.colour == oldSelf.colour", "message": "colour is immutable"},
    ],
    "properties": {
        "size": {"type": "integer", "minimum": 0, "maximum": 100},
        "least": {"type": "integer", "default": 1},
        "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "parts": {
            "type": "array",
            "maxItems": 3,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "count": {"type": "integer", "default": 1},
                },
            },
        },
    },
}
_STATUS = {
    "type": "object",
    "properties": {"size": {"type": "integer"}, "selector": {"type": "string"}, "ready": {"type": "boolean"}},
}
WIDGET_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.org"},
    "spec": {
        "group": "example.org",
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets", "singular": "widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "properties": {"spec": _SPEC, "status": _STATUS}}
                },
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.size",
                        "statusReplicasPath": ".status.size",
                        "labelSelectorPath": ".status.selector",
                    },
                },
                "selectableFields": [{"jsonPath": ".spec.colour"}],
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Ready", "type": "boolean", "jsonPath": ".status.ready"},
                    {"name": "Colour", "type": "string", "jsonPath": ".spec.colour", "priority": 1},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
            }
        ],
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the definitions established."""
    with running(tmp_path_factory.mktemp("apiserver")) as running_server:
        client = running_server.client()
        for definition in [*manifests().values(), WIDGET_DEFINITION]:
            assert client.post(DEFINITIONS, definition).status == 201
        wait_until(lambda: client.get(WIDGETS).status == 200)
        client.close()
        yield running_server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """The administrator's client."""
    made = server.client()
    yield made
    made.close()


@pytest.fixture
def widget(client: Client) -> Iterator[Callable[..., dict[str, Any]]]:
    """Makes widgets, which are deleted at the end."""
    yield lambda called, labels=None, **spec: client.post(WIDGETS, a_widget(called, labels, **spec)).body
    client.delete(WIDGETS)


def a_widget(called: str, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A widget of size 5, unless told otherwise."""
    head = {
        "apiVersion": "example.org/v1",
        "kind": "Widget",
        "metadata": {"name": called, "labels": labels or {}},
    }
    return head | {"spec": {"size": 5} | spec}


def wait_until(holds: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
