"""CNI plugins are executed as the spec says: configuration, environment, order, errors. Plugins here are scripts."""

import json
import os
import stat
import sys

import pytest

from fast.errors import InvalidConfig
from fast_playground.cluster.plugins import Attachment, Network, PluginError, PluginRunner, find_network

ATTACHMENT = Attachment(
    "c" * 64, "/run/netns/x", arguments={"K8S_POD_NAME": "p"}, capabilities={"portMappings": [1]}
)

#: Appends what it was called with to calls.jsonl beside itself, and answers with its own name.
RECORDER = """#!{python}
import json, os, sys
config = json.load(sys.stdin)
call = dict(config=config, env={{k: v for k, v in os.environ.items() if k.startswith("CNI_")}}, type="{name}")
with open("{log}", "a") as log:
    log.write(json.dumps(call) + "\\n")
{body}
"""


@pytest.fixture
def plugins(tmp_path):
    return Plugins(tmp_path)


class Plugins:
    """A directory of plugins and what they were called with."""

    def __init__(self, path):
        self.path = path
        self.log = path / "calls.jsonl"

    def add(self, name, body="if os.environ['CNI_COMMAND'] == 'ADD': print(json.dumps(dict(by='{name}')))"):
        text = RECORDER.format(python=sys.executable, name=name, log=self.log, body=body.format(name=name))
        file = self.path / name
        file.write_text(text)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def calls(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def runner(self, **options):
        return PluginRunner([self.path], **options)


def network(*types, version="1.1.0"):
    return Network("net", version, tuple({"type": kind} for kind in types))


async def test_add_runs_the_plugins_in_order_and_gives_each_the_result_of_the_one_before(plugins):
    plugins.add("first")
    plugins.add("second")
    assert await plugins.runner().add(network("first", "second"), ATTACHMENT) == {"by": "second"}
    one, two = plugins.calls()
    assert "prevResult" not in one["config"]
    assert two["config"] == {
        "type": "second",
        "name": "net",
        "cniVersion": "1.1.0",
        "prevResult": {"by": "first"},
    }


async def test_delete_runs_the_plugins_in_reverse_order_with_the_result_of_add(plugins):
    plugins.add("first")
    plugins.add("second")
    await plugins.runner().delete(network("first", "second"), ATTACHMENT, {"by": "second"})
    assert [call["type"] for call in plugins.calls()] == ["second", "first"]
    assert all(call["config"]["prevResult"] == {"by": "second"} for call in plugins.calls())


async def test_a_plugin_gets_the_variables_of_the_spec(plugins):
    plugins.add("one")
    await plugins.runner().add(network("one"), ATTACHMENT)
    assert plugins.calls()[0]["env"] == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c" * 64,
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=p",
        "CNI_PATH": str(plugins.path),
    }


async def test_only_a_plugin_that_declares_a_capability_gets_its_arguments(plugins):
    plugins.add("with")
    plugins.add("without")
    declared = {"type": "with", "capabilities": {"portMappings": True, "bandwidth": True}}
    await plugins.runner().add(Network("net", "1.0.0", (declared, {"type": "without"})), ATTACHMENT)
    one, two = plugins.calls()
    assert one["config"]["runtimeConfig"] == {"portMappings": [1]}
    assert "capabilities" not in one["config"]
    assert "runtimeConfig" not in two["config"]


async def test_status_is_asked_of_every_plugin_from_version_1_1_on(plugins):
    plugins.add("one")
    await plugins.runner().status(network("one", version="1.0.0"))
    assert not plugins.log.exists()
    await plugins.runner().status(network("one"))
    assert plugins.calls()[0]["env"]["CNI_COMMAND"] == "STATUS"


async def test_the_error_object_of_a_plugin_becomes_message_and_code(plugins):
    plugins.add("bad", "print(json.dumps(dict(code=11, msg='later', details='agent away'))); sys.exit(1)")
    with pytest.raises(PluginError, match=r'plugin type="bad" failed \(add\): later: agent away') as caught:
        await plugins.runner().add(network("bad"), ATTACHMENT)
    assert caught.value.code == 11


async def test_a_plugin_that_fails_without_an_error_object_is_quoted(plugins):
    plugins.add("bad", "print('boom', file=sys.stderr); sys.exit(3)")
    with pytest.raises(PluginError, match="exit status 3: boom"):
        await plugins.runner().add(network("bad"), ATTACHMENT)


async def test_a_plugin_that_is_not_there_or_would_be_elsewhere_is_not_found(plugins):
    for kind in ("missing", "../missing", "/bin/true"):
        with pytest.raises(PluginError, match="failed to find plugin"):
            await plugins.runner().add(network(kind), ATTACHMENT)


async def test_a_plugin_that_hangs_is_killed_and_is_an_error(plugins):
    plugins.add("slow", "import time; time.sleep(60)")
    with pytest.raises(PluginError, match="did not answer in time"):
        await plugins.runner(timeout_seconds=0.5).add(network("slow"), ATTACHMENT)


def write(directory, name, content):
    (directory / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_of_several_network_configurations_the_first_by_name_is_used(tmp_path):
    write(tmp_path, "20-other.conflist", {"name": "other", "cniVersion": "1.0.0", "plugins": [{"type": "b"}]})
    write(tmp_path, "10-fast.conflist", {"name": "fast", "cniVersion": "1.0.0", "plugins": [{"type": "a"}]})
    write(tmp_path, "00-readme.txt", "not one")
    assert find_network(tmp_path) == Network("fast", "1.0.0", ({"type": "a"},))


def test_the_newest_version_that_the_list_offers_is_taken(tmp_path):
    offered = {"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0", "9.0.0"]}
    write(tmp_path, "10.conflist", {"name": "net", "plugins": [], **offered})
    found = find_network(tmp_path)
    assert found is not None
    assert found.version == "1.1.0"


def test_without_a_directory_or_files_there_is_no_network(tmp_path):
    assert find_network(tmp_path) is None
    assert find_network(tmp_path / "missing") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"plugins": []}'])
def test_a_file_that_is_no_network_configuration_is_named_in_the_error(tmp_path, content):
    write(tmp_path, "10-bad.conflist", content)
    with pytest.raises(InvalidConfig, match=r"10-bad\.conflist"):
        find_network(tmp_path)


def test_the_plugins_inherit_what_marks_the_playgrounds_processes(monkeypatch):
    monkeypatch.setenv("FAST_PLAYGROUND", "x")
    assert PluginRunner([])._environment("ADD", None)["FAST_PLAYGROUND"] == "x"
    assert os.environ["FAST_PLAYGROUND"] == "x"
