"""Which plugins the conformance suite runs against, and which of its tests a plugin's versions oblige."""

from collections.abc import Iterator

import pytest

from e2e.cni_conformance.plugin import NETWORK, VERSIONS, Plugin, Runtime, Sandbox
from e2e.running import Running, running

FAST = Plugin(
    name="fast",
    node="n1",
    binary="/opt/cni/bin/fast-cni",
    versions=VERSIONS,
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
    deviations={
        "test_an_error_object_has_the_version_of_the_configuration": "its error objects have no cniVersion"
    },
)


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
    for plugin in (FAST, BRIDGE):
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
        yield found


@pytest.fixture
def runtime(request: pytest.FixtureRequest, cluster: Running) -> Runtime:
    """A runtime that calls the plugin that the test is made for."""
    plugin, version = request.param
    node = cluster.playground.node(plugin.node)

    def of_fast(container_id: str) -> list[str]:
        records = cluster.items("ipendpoints")
        return [
            item["metadata"]["name"] for item in records if item["spec"].get("containerID") == container_id
        ]

    def of_host_local(container_id: str) -> list[str]:
        done = node.run("grep", "-rlF", container_id, f"/var/lib/cni/networks/{NETWORK}")
        return [path.rpartition("/")[2] for path in done.stdout.split()]

    return Runtime(plugin, version, node, of_fast if plugin is FAST else of_host_local)


@pytest.fixture
def sandbox(runtime: Runtime) -> Iterator[Sandbox]:
    """A container without a network."""
    with runtime.sandbox() as made:
        yield made
