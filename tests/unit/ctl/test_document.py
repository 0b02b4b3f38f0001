"""docs/use/fast-ctl.md lists every command there is, and no other."""

import re
from pathlib import Path

import click

from fast.ctl.fast_ctl import main

DOCUMENT = Path(__file__).parents[3] / "docs" / "use" / "fast-ctl.md"


def commands(command: click.Command, name: str) -> set[str]:
    """The names of all commands below, the playground's as one."""
    if command.hidden:
        return set()
    if not isinstance(command, click.Group) or name == "fast-ctl playground":
        return {name}
    context = click.Context(command)
    found = {item: command.get_command(context, item) for item in command.list_commands(context)}
    itself = {name} if command.invoke_without_command else set()
    return itself | {
        leaf for item, below in found.items() if below for leaf in commands(below, f"{name} {item}")
    }


def test_the_document_has_every_command_and_no_other():
    listed = {
        match[1].strip()
        for match in re.finditer(r"^\| `(fast-ctl [a-z -]+)", DOCUMENT.read_text(), re.MULTILINE)
    }
    listed = {re.sub(r" (-|up$).*", "", item) for item in listed}
    assert listed == commands(main, "fast-ctl")
