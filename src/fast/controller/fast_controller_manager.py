"""The ``fast-controller-manager`` command: reads the options, sets up logs, runs until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from fast import __version__
from fast.controller.controller import ControllerConfig, default_identity, run_controller
from fast.errors import FastError
from fast.logs import configure_logs


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": "FAST_CONTROLLER",
        "show_default": True,
    }
)
@click.version_option(__version__, prog_name="fast-controller-manager")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The way to the API server.  [default: KUBECONFIG, else in-cluster, else ~/.kube/config]",
)
@click.option("--namespace", default="fast-system", help="Where the Lease lives.")
@click.option(
    "--leader-elect/--no-leader-elect",
    default=True,
    help="Work only while holding the Lease; without, never run two of them.",
)
@click.option("--identity", default=default_identity, help="This process among those that want the Lease.")
@click.option(
    "--http-address", default="127.0.0.1:9096", help="HOST:PORT for /healthz, /readyz and /metrics."
)
@click.option(
    "--gc-interval-seconds",
    type=click.FloatRange(min=1),
    default=60.0,
    help="Between two sweeps of the garbage collection.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.option("--log-format", type=click.Choice(["json", "console"]), default="json")
def main(log_level: str, log_format: Any, **options: Any) -> None:
    """Keep the cluster's address pools in order.

    Writes the status of every Ips, holds deleted ones until their last address is free, and frees addresses whose
    node is gone or fenced. Every option can be given in the environment, as FAST_CONTROLLER_HTTP_ADDRESS.
    """
    configure_logs(log_level, log_format)
    try:
        asyncio.run(run_controller(ControllerConfig(**options)))
    except FastError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
