"""docs/develop/controller.md lists every option with its default."""

import re
from pathlib import Path

from fast.controller.fast_controller_manager import main

DOCUMENT = Path(__file__).parents[3] / "docs" / "develop" / "controller.md"


def test_the_document_has_every_option_with_its_default_and_no_other():
    rows = dict(re.findall(r"^\| `(--[a-z-]+)` \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE))
    options = {option.opts[0]: option.default for option in main.params if option.opts[0] != "--version"}
    assert rows.keys() == options.keys()
    for flag, default in options.items():
        if isinstance(default, str | float) and not isinstance(default, bool):
            assert rows[flag].strip("`") == (default if isinstance(default, str) else f"{default:g}")
