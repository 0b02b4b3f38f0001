"""``make check``: fails on words that the glossary and the prose style forbid.

It lists only words that always have a better one, so there are no exceptions. Generated text is skipped.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Refused patterns, and what to write instead.
WORDS = {
    r"anew": "again",
    r"(?<!playground )(?<![\"`_])mend(s|ed|ing)?(?![\"`_(\]])": "repair",
    r"by now": "already, or the reason",
    r"short[ -]?(way|cut)s?": "fast path",
    r"DESIGN section": "docs/develop/design.md",
    r"parses no JSON": "what the plugin does",
    r"come(s)? by an? (address|record)": "claim",
}
#: The glossary lists what not to write; this file does, too.
EXCUSED = {"docs/develop/glossary.md", "scripts/prose.py", "tests/unit/test_prose.py", "CHANGELOG.md"}
SUFFIXES = {".py", ".md", ".c", ".h", ".sh", ".yaml", ".toml", ".tpl"}


def findings(text: str) -> list[tuple[int, str, str]]:
    """Return line number, word and what to write instead, for each word that is refused."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for word, instead in WORDS.items():
            found += [
                (number, match[0], instead) for match in re.finditer(rf"\b{word}\b", line, re.IGNORECASE)
            ]
    return found


def main() -> int:
    """Look through every file that git knows; exit status 1 if a word is refused."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    refused = 0
    for name in names:
        path = ROOT / name
        if path.suffix not in SUFFIXES or name in EXCUSED or not path.is_file():
            continue
        for number, word, instead in findings(path.read_text()):
            print(f"{name}:{number}: {word!r}: write {instead}")
            refused += 1
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
