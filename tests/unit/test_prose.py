"""The prose check finds what it is there for, and nothing else."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("prose", ROOT / "scripts" / "prose.py")
prose = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(prose)


@pytest.mark.parametrize(
    "line",
    [
        "Set it anew.",
        "mends what was changed",
        "Mended.",
        "is another one by now",
        "a short cut",
        "by short-cuts",
    ],
)
def test_a_word_with_a_better_one_is_refused(line):
    assert [number for number, _, _ in prose.findings(f"fine\n{line}\n")] == [2]


@pytest.mark.parametrize(
    "line",
    [
        "amend the commit",
        "recommend it",
        "a new one",
        "step by step, now",
        "a short answer, cut off",
        "fast-ctl playground mend",
        'command("mend")',
    ],
)
def test_what_only_looks_like_one_is_not(line):
    assert prose.findings(line) == []
