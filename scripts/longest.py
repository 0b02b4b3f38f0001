"""``make check``: prints the ten longest functions and modules. It never fails."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHOWN = 10


def main() -> None:
    """Print lines and name of each."""
    modules, functions = [], []
    for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "playground" / "src").rglob("*.py")):
        text, name = path.read_text(), str(path.relative_to(ROOT))
        if text.startswith(("# Generated", '"""Generated')):
            continue
        modules.append((text.count("\n"), name))
        functions += [
            (node.end_lineno - node.lineno + 1, f"{name}:{node.lineno} {node.name}")
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
        ]
    for title, found in (("functions", functions), ("modules", modules)):
        print(f"The {SHOWN} longest {title}, in lines:")
        print(
            "".join(f"  {lines:4}  {name}\n" for lines, name in sorted(found, reverse=True)[:SHOWN]), end=""
        )


if __name__ == "__main__":
    main()
