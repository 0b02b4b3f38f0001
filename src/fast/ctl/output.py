"""How every command prints rows: tables as kubectl's, wide ones, JSON, YAML. No colours: it is read by programs too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

Row = Mapping[str, Any]
_GAP = "   "

#: The ``-o`` option, with which every listing command is decorated.
output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "yaml"]),
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
        spell: How a value is written in a table, where ``str`` does not do; JSON and YAML have the value itself.
    """

    title: str
    field: str
    wide: bool = False
    spell: Callable[[Any], str] = str


def print_rows(rows: Sequence[Row], columns: Sequence[Column], output: str, *, nothing: str) -> None:
    """Print rows on stdout.

    Args:
        rows: JSON-able values by field. All fields go into JSON and YAML, whatever the columns.
        columns: Of the table, in order.
        output: What ``output_option`` gave.
        nothing: The sentence on stderr in place of a table without rows.
    """
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(list(rows)), indent=2))
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump([dict(row) for row in rows], sort_keys=False), nl=False)
    elif not rows:
        click.echo(nothing, err=True)
    else:
        shown = [column for column in columns if output == "wide" or not column.wide]
        click.echo(format_table(rows, shown))


def format_table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Lay rows out in columns, left-aligned below their titles, without trailing blanks."""
    cells = [[column.title for column in columns]]
    cells += [[column.spell(row[column.field]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
