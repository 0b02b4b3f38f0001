"""How fast-ctl finds its commands, and how it fails."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from fast.ctl.fast_ctl import main

SLOW_MODULES = ("aiohttp", "fast.datapath", "fast_playground.cluster", "rich", "yaml", "pyroute2", "msgspec")


@pytest.fixture
def runner():
    return CliRunner()


def test_help_lists_the_commands_of_this_package_and_of_the_layers_above(runner):
    result = runner.invoke(main, ["--help"])
    assert result.exit_code == 0
    for command in ("local-ips", "cluster-ips", "local-dev", "flows", "metrics", "version", "playground"):
        assert f"  {command} " in result.output


@pytest.mark.parametrize("alias", ["lips", "cips", "ldev"])
def test_an_alias_is_its_command(runner, alias):
    result = runner.invoke(main, [alias, "--help"])
    assert result.exit_code == 0
    assert "list" in result.output


def test_an_unknown_command_is_refused_by_name(runner):
    result = runner.invoke(main, ["nosuch"])
    assert result.exit_code == 2
    assert "nosuch" in result.output


def test_a_module_of_the_package_that_is_no_command_is_none_either(runner):
    assert runner.invoke(main, ["output"]).exit_code == 2


def test_an_error_of_fast_is_one_line_and_exit_status_1(runner, tmp_path):
    result = runner.invoke(main, ["local-ips", "list", "--bpf-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert str(tmp_path) in result.output


def test_printing_the_version_imports_nothing_slow():
    script = (
        "import sys; from fast.ctl.fast_ctl import main; main(['version'], standalone_mode=False);"
        f"print([m for m in {SLOW_MODULES!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
