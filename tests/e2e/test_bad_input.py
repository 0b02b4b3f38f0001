"""Bad input gets an error that says what and where, and nothing is left half made."""

import json

import pytest

from e2e.running import IPS

NETWORK = {"cniVersion": "1.1.0", "name": "fast", "type": "fast-cni"}
PLUGIN = "/opt/cni/bin/fast-cni"


@pytest.fixture
def node(playground):
    return playground.playground.node("n1")


@pytest.fixture
def traces(playground, node):
    """What a call might leave behind, before and after it."""

    def look():
        devices = node.run("ip", "-o", "link").stdout.count("\n")
        return devices, playground.ctl("n1", "local-ips", "list"), playground.items("ipendpoints")

    before = look()
    yield
    assert look() == before


@pytest.fixture
def netns(node):
    node.run("ip", "netns", "add", "bad-input", check=True)
    yield "/run/netns/bad-input"
    node.run("ip", "netns", "delete", "bad-input", check=True)


def call(node, config=NETWORK, **changes):
    """Execute the plugin as a runtime does; ``changes`` to the environment of an ADD (None: without it)."""
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "bad-input",
        "CNI_NETNS": "/run/netns/bad-input",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
    } | changes
    words = [f"{key}={value}" for key, value in environment.items() if value is not None]
    text = config if isinstance(config, str) else json.dumps(config)
    done = node.run("env", *words, PLUGIN, input=text)
    assert done.returncode == 1, done.stdout
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("ips", "said"),
    [
        ("10.244.10.9-10.244.10.1", "the range is reversed"),
        ("10.245.0.1-10.245.0.9", "ips must be inside the subnet"),
        ("10.244.0.300", "must be an address"),
        ("from-here-to-there", "must be an address"),
        ("10.244.0.1-fd00::1", "must not mix IPv4 and IPv6"),
    ],
)
def test_a_pool_that_makes_no_sense_is_refused_with_the_reason(playground, ips, said):
    done = playground.kubectl(
        "create", "-f", "-", stdin=IPS.format(name="bad", subnet="10.244.0.1/16", ips=ips).encode()
    )
    assert done.returncode == 1
    assert said in done.stderr.decode()
    assert not playground.items("ips")


def test_a_pool_that_only_the_controller_can_judge_says_so_in_its_condition(playground):
    playground.make_pool("reversed", "fd00::9-fd00::1", subnet="fd00::/64")
    condition = playground.until(lambda: ready_condition(playground, "reversed"), "a condition")
    assert (condition["status"], condition["reason"]) == ("False", "InvalidSpec")
    assert "fd00::9-fd00::1" in condition["message"]
    playground.kubectl.check("delete", "ips", "reversed")


def ready_condition(playground, pool):
    conditions = playground.get("ips", pool).get("status", {}).get("conditions", [])
    return next((item for item in conditions if item["type"] == "Ready"), None)


def test_a_pod_of_an_unknown_pool_says_which_and_runs_once_the_pool_is_there(playground):
    playground.make_pod("lost", fast_io_ips="nowhere")
    said = playground.until(lambda: playground.events("FailedCreatePodSandBox", "lost"), "an event")
    assert "nowhere" in said[0]
    assert not playground.items("ipendpoints")
    assert not playground.ctl("n1", "local-ips", "list")
    playground.make_pool("nowhere", "10.244.30.0-10.244.30.9")
    assert playground.wait_running("lost") == ["10.244.30.0"]
    playground.delete_pods()
    playground.kubectl.check("delete", "ips", "nowhere")


def test_a_pod_of_an_exhausted_pool_says_so_and_runs_once_an_address_is_free(playground):
    playground.make_pool("tiny", "10.244.40.0")
    playground.make_pod("first", fast_io_ips="tiny")
    assert playground.wait_running("first") == ["10.244.40.0"]
    playground.make_pod("second", node="n2", fast_io_ips="tiny")
    said = playground.until(lambda: playground.events("FailedCreatePodSandBox", "second"), "an event")
    assert "tiny" in said[0]
    assert "exhausted" in said[0]
    assert [item["metadata"]["name"] for item in playground.items("ipendpoints")] == ["10.244.40.0"]
    assert not playground.ctl("n2", "local-ips", "list")
    playground.kubectl.check("delete", "pod", "first")
    assert playground.wait_running("second", seconds=60) == ["10.244.40.0"]
    playground.delete_pods()
    playground.kubectl.check("delete", "ips", "tiny")


@pytest.mark.parametrize("variable", ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])
@pytest.mark.usefixtures("traces")
def test_a_call_without_a_variable_that_it_needs_names_it(node, variable):
    error = call(node, **{variable: None})
    assert error["code"] == 4
    assert variable in error["msg"]


@pytest.mark.usefixtures("traces", "netns")
@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ("{", 6, "not JSON"),
        ("", 6, ""),
        ("[]", 7, "array"),
        (NETWORK | {"cniVersion": "9.9.9"}, 1, "9.9.9"),
        (NETWORK | {"name": ""}, 7, "name"),
        (NETWORK | {"mtu": "big"}, 7, "mtu"),
    ],
)
def test_a_configuration_that_cannot_be_used_gets_the_specifications_code_and_the_reason(
    node, config, code, said
):
    error = call(node, config)
    assert error["code"] == code
    assert said in error["msg"]


@pytest.fixture
def default_pool(playground):
    playground.make_pool("default-ips", "10.244.50.0-10.244.50.9")
    yield
    playground.kubectl.check("delete", "ips", "default-ips")


@pytest.mark.usefixtures("default_pool", "traces")
def test_a_network_namespace_that_does_not_exist_is_named(node):
    error = call(node, CNI_NETNS="/run/netns/none-such")
    assert "/run/netns/none-such" in error["msg"]


@pytest.mark.usefixtures("default_pool", "traces", "netns")
def test_with_the_agent_away_the_runtime_is_told_to_try_again_later(playground, node):
    node.control.stop("agent")
    error = call(node)
    playground.playground.start_agent(node)
    playground.playground.wait_ready()
    assert error["code"] == 11
    assert "fast-agent" in error["msg"]
