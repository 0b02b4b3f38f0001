"""Every link between the project's pages leads somewhere, and every page that code names exists."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "playground" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that the forge makes from a page's headings."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+)$", CODE.sub("", page.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return frozenset(found)


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere; links to other sites are not followed."""
    wrong = []
    for match in LINK.finditer(CODE.sub("", page.read_text())):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and (target.suffix != ".md" or anchor not in anchors(target))):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    assert broken(page) == []


def test_a_link_to_a_missing_page_or_heading_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Here it is\n[a](#here-it-is) [b](#not-here) [c](missing.md) [d](page.md#here-it-is) [e](https://x)\n"
    )
    assert broken(page) == ["#not-here", "missing.md"]


def test_every_page_is_in_the_index():
    indexes = [ROOT / "docs" / "README.md", ROOT / "docs" / "adr" / "README.md"]
    links = [
        (index.parent, match[1] or match[2])
        for index in indexes
        for match in LINK.finditer(index.read_text())
    ]
    linked = {(folder / link.partition("#")[0]).resolve() for folder, link in links}
    assert set((ROOT / "docs").rglob("*.md")) - linked - set(indexes) == set()


def test_every_page_that_a_file_of_the_project_names_exists():
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    missing = set()
    for name in names:
        path = ROOT / name
        if not path.is_file() or path.suffix in {".svg", ".png"}:
            continue
        for page in re.findall(r"(?<![\w/.-])docs/[\w/-]+\.(?:md|svg|json)", path.read_text(errors="ignore")):
            if not (ROOT / page).exists():
                missing.add(f"{name}: {page}")
    assert missing == set()
