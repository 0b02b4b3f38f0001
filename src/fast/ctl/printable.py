"""Makes text from the API safe to print: whoever may write an object must not control the reader's terminal."""

from __future__ import annotations

import json


def printable(text: str) -> str:
    """Spell control characters, line ends, and marks that change the direction of text, as escapes.

    One value stays one line, and what looks like a line of Fast is one.
    """
    if text.isprintable():
        return text
    return "".join(
        item if item.isprintable() else item.encode("unicode_escape", "surrogatepass").decode()
        for item in text
    )


def printable_json(text: str) -> str:
    """Escape in JSON what JSON allows as it is but a terminal may act on, such as U+009B. It means the same."""
    return "".join(item if item.isprintable() or item == "\n" else json.dumps(item)[1:-1] for item in text)
