"""Tables, JSON and YAML of fast-ctl."""

import json

import click
import pytest
import yaml

from fast.ctl.output import Column, format_table, print_rows

COLUMNS = (Column("NAME", "name"), Column("SIZE", "size", spell=hex), Column("NOTE", "note", wide=True))
ROWS = [{"name": "a", "size": 16, "note": "x"}, {"name": "long-name", "size": 1, "note": ""}]


def test_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_trailing_blanks():
    assert format_table(ROWS, COLUMNS[:2]).splitlines() == [
        "NAME        SIZE",
        "a           0x10",
        "long-name   0x1",
    ]


def test_a_table_leaves_out_wide_columns_and_wide_has_them(capsys):
    print_rows(ROWS, COLUMNS, "table", nothing="")
    assert "NOTE" not in capsys.readouterr().out
    print_rows(ROWS, COLUMNS, "wide", nothing="")
    assert "NOTE" in capsys.readouterr().out


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_json_and_yaml_hold_every_field_with_its_own_value(capsys, output, load):
    print_rows(ROWS, COLUMNS, output, nothing="")
    assert load(capsys.readouterr().out) == ROWS


def test_no_rows_are_said_on_stderr_in_a_table_and_an_empty_list_in_json(capsys):
    print_rows([], COLUMNS, "table", nothing="Nothing here.")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "Nothing here.\n")
    print_rows([], COLUMNS, "json", nothing="Nothing here.")
    assert json.loads(capsys.readouterr().out) == []


def test_colours_appear_only_where_asked_for_and_do_not_change_the_layout():
    columns = (
        Column("NAME", "name"),
        Column("SIZE", "size", colour=lambda size: "red" if size > 9 else None),
    )
    plain = format_table(ROWS, columns, coloured=False)
    coloured = format_table(ROWS, columns, coloured=True)
    assert "\x1b[31m" in coloured
    assert click.unstyle(coloured) == plain


def test_a_table_for_a_program_has_no_colours(capsys):
    columns = (Column("NAME", "name", colour=lambda _: "red"),)
    print_rows(ROWS, columns, "table", nothing="")
    assert "\x1b" not in capsys.readouterr().out
