"""The agent's options: flags before environment before file before default."""

import click
import pytest
from click.testing import CliRunner

from fast.agent.config.agent_config import AgentConfig, agent_options


def read(*arguments, **environment):
    """Read the options; gives the configuration, or the text of the error."""
    found = []

    @click.command()
    @agent_options
    def command(**options):
        found.append(AgentConfig(**options))

    result = CliRunner().invoke(command, list(arguments), env={"NODE_NAME": "n1", **environment})
    return found[0] if found else result.output


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "agent.yaml"

    def write(text):
        path.write_text(text)
        return str(path)

    return write


def test_a_flag_goes_before_the_environment_before_the_file_before_the_default(file):
    config = file("tunnel-port: 1111\n")
    assert read().tunnel_port not in (1111, 2222, 3333)
    assert read("--config", config).tunnel_port == 1111
    assert read("--config", config, FAST_TUNNEL_PORT="2222").tunnel_port == 2222
    assert read("--config", config, "--tunnel-port", "3333", FAST_TUNNEL_PORT="2222").tunnel_port == 3333


def test_the_nodes_name_comes_by_node_name_and_is_needed():
    assert read().node_name == "n1"
    assert "NODE_NAME" in read(NODE_NAME="")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tunnel-port", "70000"], "--tunnel-port"),
        (["--routing", "magic"], "--routing"),
        (["--node-ip", "fd00::1"], "--node-ip"),
        (["--node-ip", "here"], "--node-ip"),
        (["--http-address", "nothing"], "--http-address"),
        (["--pod-mtu", "10"], "--pod-mtu"),
    ],
)
def test_a_value_that_cannot_be_used_names_its_option(arguments, said):
    assert said in read(*arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [("tunel-port: 1\n", "tunel-port"), ("- a\n", "mapping"), ("a: [\n", "cannot be read")],
)
def test_a_file_that_cannot_be_used_says_why(file, text, said):
    assert said in read("--config", file(text))


def test_a_value_of_the_file_is_held_to_the_same_rules(file):
    assert "70000" in read("--config", file("tunnel-port: 70000\n"))
