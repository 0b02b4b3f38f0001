"""The layers that import-linter holds cover the whole product, and the product never imports the playground."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ROOT / "src" / "fast"


def imports(path):
    """The names that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_package_and_module_of_the_product_has_a_layer():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {name.strip() for layer in contracts[0]["layers"] for name in layer.split("|")}
    parts = {
        path.stem for path in PRODUCT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert {f"fast.{part}" for part in parts - {"__init__"}} - layers == set()


def test_the_product_never_imports_the_playground():
    found = [
        path.name
        for path in PRODUCT.rglob("*.py")
        if any("fast_playground" in name for name in imports(path))
    ]
    assert found == []


def test_no_two_modules_have_the_same_name():
    sources = [*PRODUCT.rglob("*.py"), *(ROOT / "playground" / "src").rglob("*.py")]
    names = [path.stem for path in sources if path.stem != "__init__"]
    assert {name for name in names if names.count(name) > 1} == set()
