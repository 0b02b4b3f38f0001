"""``fast-ctl version``: what runs here, for reports of faults."""

from __future__ import annotations

import platform

import click

from fast import __version__
from fast.ctl.output import Column, output_option, print_rows

_COLUMNS = (
    Column("FAST", "fast"),
    Column("PYTHON", "python"),
    Column("KERNEL", "kernel"),
    Column("MACHINE", "machine"),
)


@click.command()
@output_option
def version(output: str) -> None:
    """Print the versions of Fast, Python and the kernel."""
    row = {
        "fast": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
    }
    print_rows([row], _COLUMNS, output, nothing="")
