"""The ``fast-ctl`` command: finds its subcommands when they are asked for, and prints errors of Fast as one line."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import entry_points

import click

from fast import __version__
from fast.errors import FastError

_PACKAGE = "fast.ctl"
_ENTRY_POINTS = "fast.ctl.commands"
#: In the order of ``--help``.
_COMMANDS = ("local-ips", "cluster-ips", "local-dev", "flows", "metrics", "ipam", "version")
_ALIASES = {"lips": "local-ips", "cips": "cluster-ips", "ldev": "local-dev"}


class LazyGroup(click.Group):
    """A group whose commands are imported only when one of them is used, or help lists them all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the commands of this package that exist, then those of the layers above."""
        own = [name for name in _COMMANDS if importlib.util.find_spec(_module(name))]
        return own + sorted(point.name for point in entry_points(group=_ENTRY_POINTS))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command by its name or alias."""
        name = _ALIASES.get(cmd_name, cmd_name)
        if name in _COMMANDS and importlib.util.find_spec(_module(name)):
            command: click.Command = getattr(importlib.import_module(_module(name)), _attribute(name))
            return command
        for point in entry_points(group=_ENTRY_POINTS, name=name):
            loaded: click.Command = point.load()
            return loaded
        return None

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; Fast's own errors become ``Error: …`` and exit status 1, without a traceback."""
        try:
            return super().invoke(ctx)
        except FastError as error:
            raise click.ClickException(str(error)) from error


def _attribute(name: str) -> str:
    return name.replace("-", "_")


def _module(name: str) -> str:
    return f"{_PACKAGE}.{_attribute(name)}"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fast-ctl")
def main() -> None:
    """Look into Fast on this node and change it.

    Aliases: lips = local-ips, cips = cluster-ips, ldev = local-dev.
    """


if __name__ == "__main__":
    main()
