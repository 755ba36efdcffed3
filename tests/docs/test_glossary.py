"""Every term of the glossary occurs on the page that it links to, and the README links to it."""

import re
from pathlib import Path

import pytest

GLOSSARY = Path("docs/glossary.md")
ROW = re.compile(
    r"^\| ([^|]+?) \| ([^|]+?) \| \[[^]]+\]\(([^)#]+)(?:#([^)]+))?\) \|$", re.MULTILINE
)
ROWS = ROW.findall(GLOSSARY.read_text(encoding="utf-8"))
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def section(page: str, name: str) -> str:
    """Return the text below the heading with an anchor, up to a heading of its level; the whole
    page without one.
    """
    if not name:
        return page
    (start,) = (found for found in HEADING.finditer(page) if anchor(found[1]) == name)
    level = start[0].split(" ")[0]
    rest = page[start.start() :]
    below = re.compile(rf"^#{{1,{len(level)}}} ", re.MULTILINE)
    end = below.search(rest, len(start[0]))
    return rest[: end.start()] if end else rest


def test_every_row_is_read_and_terms_are_in_order() -> None:
    terms = [term for term, *_ in ROWS]
    lines = [line for line in GLOSSARY.read_text(encoding="utf-8").splitlines() if "](" in line]
    assert len(terms) == len(lines) >= 50
    assert terms == sorted(set(terms))


@pytest.mark.parametrize(("term", "meaning", "page", "name"), ROWS, ids=[row[0] for row in ROWS])
def test_term_is_explained_where_it_links(term: str, meaning: str, page: str, name: str) -> None:
    assert meaning.endswith(".")
    text = section((GLOSSARY.parent / page).read_text(encoding="utf-8"), name)
    words = r"[\s_`-]+".join(re.escape(word) for word in re.split(r"[ -]", term))
    assert re.search(words, text, re.IGNORECASE), f"{page}#{name} does not use {term!r}"


def test_readme_and_walkthrough_link_to_the_glossary() -> None:
    assert "(docs/glossary.md)" in Path("README.md").read_text(encoding="utf-8")
    assert "(glossary.md)" in Path("docs/walkthrough.md").read_text(encoding="utf-8")
