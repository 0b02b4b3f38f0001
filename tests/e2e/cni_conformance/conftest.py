"""Which plugins the conformance suite runs against, and which of its tests a plugin's versions oblige.

CNI_CONFORMANCE_PLUGIN names a JSON file that describes one more, with the fields of ``Plugin``.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cni_conformance.plugin import NETWORK, VERSIONS, Plugin, Runtime, Sandbox
from e2e.running import Running, running

FAST = Plugin(
    name="fast",
    node="n1",
    binary="/opt/cni/bin/fast-cni",
    versions=VERSIONS,
    reservations="kubectl --kubeconfig /etc/fast/agent.kubeconfig get ipendpoints -o "
    """jsonpath="{range .items[?(@.spec.containerID=='$1')]}{.metadata.name} {end}" """,
    config={"dns": {"nameservers": ["10.96.0.10"], "search": ["cluster.local"]}},
)

#: The reference, as Debian has it (1.1.1): it shows that what the suite asks for can be had. It has no STATUS and GC.
BRIDGE = Plugin(
    name="bridge",
    node="n2",
    binary="/usr/lib/cni/bridge",
    versions=("0.3.1", "0.4.0", "1.0.0"),
    config={
        "bridge": "cni0",
        "isGateway": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.88.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
        "dns": {"nameservers": ["10.96.0.10"], "search": ["cluster.local"]},
    },
    reservations=f'grep -rlF "$1" /var/lib/cni/networks/{NETWORK} | sed "s|.*/||"',
    deviations={
        "test_an_error_object_has_the_version_of_the_configuration": "its error objects have no cniVersion"
    },
)


def described_plugins() -> list[Plugin]:
    """Give the plugins that the suite runs against."""
    named = os.environ.get("CNI_CONFORMANCE_PLUGIN")
    more = [Plugin(**{"node": "n2"} | json.loads(Path(named).read_text()))] if named else []
    return [FAST, BRIDGE, *more]


def pytest_configure(config: pytest.Config) -> None:
    """Declare the suite's markers."""
    config.addinivalue_line("markers", "since(version): the specification has this since that version")
    config.addinivalue_line("markers", "every_version: run in every version, not only in the plugin's newest")
    config.addinivalue_line("markers", "only(name): what this plugin promises beyond the specification")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make each test once for every plugin and version that it concerns."""
    if "runtime" not in metafunc.fixturenames:
        return
    markers = {marker.name: marker for marker in metafunc.definition.iter_markers()}
    since = VERSIONS.index(markers["since"].args[0]) if "since" in markers else 0
    cases = []
    for plugin in described_plugins():
        if "only" in markers and markers["only"].args[0] != plugin.name:
            continue
        versions = [version for version in plugin.versions if VERSIONS.index(version) >= since]
        for version in versions if "every_version" in markers else versions[-1:]:
            reason = plugin.deviations.get(metafunc.function.__name__)
            marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
            cases.append(pytest.param((plugin, version), id=f"{plugin.name}-{version}", marks=marks))
    metafunc.parametrize("runtime", cases, indirect=True)


@pytest.fixture(scope="package")
def cluster() -> Iterator[Running]:
    """A playground: Fast on n1, the reference plugin on n2, which Fast leaves alone there.

    The agents do not look after what tests damage: CHECK has to find it.
    """
    with running(nodes=2, agent_args=("--verify-interval-seconds", "3600")) as found:
        found.make_pool("default-ips", "10.244.10.0-10.244.90.0")
        for plugin in described_plugins():
            found.playground.node(plugin.node).run("sh", "-c", plugin.setup, check=True)
        yield found


@pytest.fixture
def runtime(request: pytest.FixtureRequest, cluster: Running) -> Runtime:
    """A runtime that calls the plugin that the test is made for."""
    plugin, version = request.param
    return Runtime(plugin, version, cluster.playground.node(plugin.node))


@pytest.fixture
def sandbox(runtime: Runtime) -> Iterator[Sandbox]:
    """A container without a network."""
    with runtime.sandbox() as made:
        yield made
