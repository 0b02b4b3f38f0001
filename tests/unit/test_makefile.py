"""The Makefile's own help."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_help_lists_every_target_that_says_what_it_does():
    described = re.findall(r"^(\S+):.*?## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    done = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True)
    assert {"setup", "test-e2e", "lock"} <= set(described)
    assert [target for target in described if f"{target} " not in done.stdout] == []
