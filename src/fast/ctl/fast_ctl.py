"""The ``fast-ctl`` command: finds its subcommands when they are asked for, and prints errors of Fast as one line."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points

import click

from fast import __version__
from fast.ctl.printable import printable
from fast.errors import FastError

_ENTRY_POINTS = "fast.ctl.commands"
#: Each command's module, in the order of ``--help``.
_COMMANDS = {
    "local-ips": "fast.ctl.node.local_ips",
    "cluster-ips": "fast.ctl.node.cluster_ips",
    "local-dev": "fast.ctl.node.local_dev",
    "status": "fast.ctl.see.status_command",
    "trace": "fast.ctl.see.trace",
    "drops": "fast.ctl.see.drops",
    "flows": "fast.ctl.see.flows_command",
    "metrics": "fast.ctl.node.metrics",
    "check": "fast.ctl.see.check",
    "ipam": "fast.ctl.ipam.ipam_command",
    "completion": "fast.ctl.completion",
    "version": "fast.ctl.version",
    "probe": "fast.ctl.see.probe_command",
}
_ALIASES = {"lips": "local-ips", "cips": "cluster-ips", "ldev": "local-dev"}


class LazyGroup(click.Group):
    """A group whose commands are imported only when one of them is used, or help lists them all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the commands of this package, then those of other packages."""
        return [*_COMMANDS, *sorted(point.name for point in entry_points(group=_ENTRY_POINTS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command by its name or alias."""
        name = _ALIASES.get(cmd_name, cmd_name)
        if name in _COMMANDS:
            command: click.Command = getattr(importlib.import_module(_COMMANDS[name]), name.replace("-", "_"))
            return command
        for point in entry_points(group=_ENTRY_POINTS, name=name):
            loaded: click.Command = point.load()
            return loaded
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name; a word that is none is answered with the nearest ones."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], [*self.list_commands(ctx), *_ALIASES])
            if not near:
                raise
            hint = f"{error.message} Did you mean {' or '.join(near)}?"
            raise click.UsageError(hint, error.ctx) from error

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; Fast's own errors become ``Error: …`` and exit status 1, without a traceback."""
        try:
            return super().invoke(ctx)
        except FastError as error:
            raise click.ClickException(printable(str(error))) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fast-ctl")
def main() -> None:
    """Look into Fast on this node and change it.

    Aliases: lips = local-ips, cips = cluster-ips, ldev = local-dev.
    """


if __name__ == "__main__":
    main()
