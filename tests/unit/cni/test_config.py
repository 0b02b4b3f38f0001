"""What is read from a network configuration."""

import json

import pytest

from fast.cni.network_config import parse_config

NETWORK = {"cniVersion": "1.1.0", "name": "fast", "type": "fast-cni"}


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_a_previous_result_is_taken_as_it_is(command):
    previous = {"cniVersion": "1.1.0", "ips": []}
    config = parse_config(json.dumps(NETWORK | {"prevResult": previous}).encode(), command)
    assert config.has_prev_result
    assert json.loads(bytes(config.prev_result)) == previous


@pytest.mark.parametrize("fields", [{}, {"prevResult": None}])
def test_an_absent_or_null_previous_result_is_none(fields):
    assert not parse_config(json.dumps(NETWORK | fields).encode(), "DEL").has_prev_result
