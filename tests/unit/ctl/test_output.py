"""Tables, JSON and YAML of fast-ctl."""

import json

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
