"""The ``fast-agent`` command: reads the configuration, sets up logs, runs the agent until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
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

    Stopping it, by SIGTERM or by any other way, leaves the datapath running: pods keep their traffic, and the next
    agent adopts what is there. While it is away, fast-cni answers ADD with "try again later" and keeps DELs on disk.

    SIGHUP, or a change of the configuration file, makes it read its configuration again; the log says what was applied
    and what needs a restart.

    The API server may be away, too: pods that run keep running, and CNI STATUS says 50.
    """
    config = AgentConfig(**options)
    file = click.get_current_context().meta.get(CONFIG_FILE)
    configure_logs(config.log_level, config.log_format)
    try:
        asyncio.run(run_agent(config, _read_again, file))
    except FastError as error:
        raise click.ClickException(str(error)) from error


def _read_again() -> AgentConfig:
    """Give the configuration as flags, environment and file say it now; click.ClickException where it is bad."""
    return AgentConfig(**main.make_context("fast-agent", sys.argv[1:]).params)


if __name__ == "__main__":
    main()
