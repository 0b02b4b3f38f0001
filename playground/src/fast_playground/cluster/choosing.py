"""Options that the playground's commands share, and the choice of a playground if none is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fast.errors import FastError

if TYPE_CHECKING:
    from fast_playground.cluster.lifecycle import Playground

DEFAULT_NAME = "default"

name_option = click.option(
    "--name", help='Name of the playground. Default: the only one there is, else the one called "default".'
)
namespace_option = click.option(
    "-n", "--namespace", default="default", show_default=True, help="The pod's namespace."
)


def choose(name: str | None) -> Playground:
    """Return the named playground; without a name, the only one there is, else the one called ``default``.

    Raises:
        FastError: There are several and none is called ``default``.
    """
    from fast_playground.cluster.lifecycle import Playground, list_playgrounds

    if name is None:
        there = list_playgrounds()
        if len(there) > 1 and DEFAULT_NAME not in there:
            raise FastError(f"there are several playgrounds: name one by --name ({', '.join(there)})")
        name = there[0] if len(there) == 1 else DEFAULT_NAME
    return Playground(name)


def choose_running(name: str | None) -> Playground:
    """Return a playground as ``choose`` does; FastError if it is not up."""
    found = choose(name)
    assert found.settings is not None
    return found
