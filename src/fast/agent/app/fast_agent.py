"""The ``fast-agent`` command: reads the configuration, sets up logs, runs the agent until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import click

from fast import __version__
from fast.agent.app.agent import run_agent
from fast.agent.config.agent_config import CONFIG_FILE, AgentConfig, agent_options
from fast.errors import FastError
from fast.logs import configure_logs


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fast-agent")
@agent_options
def main(**options: Any) -> None:
    """Run Fast on this node.

    Serves the node's CNI calls, gives pods their addresses, and keeps the node's eBPF programs and maps. Needs root on
    the node's own network namespace, and a bpf filesystem.

    The datapath keeps running if the agent stops, by SIGTERM or in any other way: pods keep their traffic, and the next
    agent adopts everything. Meanwhile, fast-cni answers ADD with "try again later" and keeps DELs on disk.

    On SIGHUP, or if its configuration file changes, the agent reads the configuration again. The log says what was
    applied and what needs a restart.

    If the node moves to another address, which its Node object then lists, the agent starts again with that one.

    If the API server is away, running pods keep their network, and CNI STATUS says 50.
    """
    config = AgentConfig(**options)
    file = click.get_current_context().meta.get(CONFIG_FILE)
    configure_logs(config.log_level, config.log_format)
    try:
        again = asyncio.run(run_agent(config, _read_again, file))
    except FastError as error:
        raise click.ClickException(str(error)) from error
    if again:
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 -- this very command again


def _read_again() -> AgentConfig:
    """Read flags, environment and file again; raises click.ClickException if they cannot be used."""
    return AgentConfig(**main.make_context("fast-agent", sys.argv[1:]).params)


if __name__ == "__main__":
    main()
