"""How every command prints rows: tables as kubectl prints them, wide ones, names, JSON, YAML.

Colours appear on terminals only, and not if NO_COLOR is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from fast.ctl.printable import printable, printable_json

Row = Mapping[str, Any]
_GAP = "   "

#: The ``-o`` option, with which every listing command is decorated.
output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "yaml", "name"]),
    default="table",
    show_default=True,
    help="How to print.",
)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: As ``NODE IP``.
        field: The row's key.
        wide: Whether it is shown with ``-o wide`` only.
        spell: How a value is written in a table, if ``str`` does not do; JSON and YAML have the value itself.
        colour: Gives the colour of a value on a terminal; None for none.
    """

    title: str
    field: str
    wide: bool = False
    spell: Callable[[Any], str] = str
    colour: Callable[[Any], str | None] = lambda _: None


def print_rows(rows: Sequence[Row], columns: Sequence[Column], output: str, *, nothing: str) -> None:
    """Print rows on stdout.

    Args:
        rows: JSON-able values by field. All fields go into JSON and YAML, whatever the columns.
        columns: Of the table, in order; ``-o name`` prints the first.
        output: What ``output_option`` gave.
        nothing: The sentence on stderr in place of a table without rows.
    """
    if output == "json":
        import msgspec

        click.echo(printable_json(msgspec.json.format(msgspec.json.encode(list(rows)), indent=2).decode()))
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump([dict(row) for row in rows], sort_keys=False), nl=False)
    elif not rows:
        click.echo(nothing, err=True)
    elif output == "name":
        click.echo("\n".join(printable(columns[0].spell(row[columns[0].field])) for row in rows))
    else:
        shown = [column for column in columns if output == "wide" or not column.wide]
        click.echo(format_table(rows, shown))


def format_table(rows: Sequence[Row], columns: Sequence[Column], *, coloured: bool | None = None) -> str:
    """Lay rows out in columns, left-aligned below their titles, without trailing blanks.

    Args:
        rows: Values by field.
        columns: In order.
        coloured: Whether to use colours; None: on a terminal only.
    """
    if coloured is None:
        coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    cells = [[column.title for column in columns]]
    cells += [[printable(column.spell(row[column.field])) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in cells]
    if coloured:
        for line, row in zip(lines[1:], rows, strict=True):
            for place, column in enumerate(columns):
                line[place] = _styled(line[place], column.colour(row[column.field]))
    return "\n".join(_GAP.join(line).rstrip() for line in lines)


def _styled(cell: str, colour: str | None) -> str:
    """Colour a padded cell, but not its padding."""
    text = cell.rstrip()
    return click.style(text, fg=colour) + cell[len(text) :] if colour and text else cell
