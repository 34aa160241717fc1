"""The front door: links lead somewhere, the README is short, and its figures are those of the committed notebooks."""

import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(ROOT.glob("code/0*_*/[0-9]*.ipynb"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("code/0*_*/*.md")), *NOTEBOOKS]


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def text_of(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchors(text: str) -> set[str]:
    """What links may name: headings as code hosts write them, and anchors written as HTML."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    named = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return named | set(re.findall(r'id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_to_a_file_and_a_heading(page):
    text = text_of(page)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = Path(os.path.normpath(page.parent / place)) if place else page
        if not target.exists() or (anchor and anchor not in anchors(text_of(target))):
            broken.append(link)
    assert broken == []


def test_the_readme_is_short_and_its_pictures_are_light():
    text = readme()
    assert len(text.split()) <= 1200
    for name in re.findall(r"\((image/[^)]+)\)", text):
        assert (ROOT / name).stat().st_size < 600_000, name
    assert {notebook.stem for notebook in NOTEBOOKS} <= set(re.findall(r"\[(\w+)\]", text))


def headlines(notebook: Path) -> dict[str, float]:
    outputs = [
        "".join(data.get("text/plain", ""))
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", [])
        for data in [output.get("data", {})]
    ]
    found = re.findall(r"^(headline\w*): (\S+)$", "\n".join(outputs), re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_the_figures_of_the_readme_are_those_of_the_committed_notebooks():
    rows = re.findall(r"^\|.*?(\d\.\d+) \((\S+) to (\S+)\).*?\| (\S+), .*?\((code/\S+)\) \|$", readme(), re.MULTILINE)
    assert len(rows) == 7
    for *said, notebook in rows:
        found = headlines(ROOT / notebook)
        expected = [found[f"headline{part}"] for part in ("", "_low", "_high", "_baseline")]
        assert [f"{value:.2f}" for value in expected] == said, notebook


def test_the_site_has_every_page_and_every_notebook_in_order():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^(\w+)$", index, re.MULTILINE))
    assert {path.stem for path in ROOT.glob("docs/*.md")} - {"index"} <= listed
    stages = re.findall(r"^../code/(\w+)/\[0-9\]\*$", index, re.MULTILINE)
    assert stages == sorted({path.parent.name for path in NOTEBOOKS})
