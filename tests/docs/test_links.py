"""Every relative link, image and anchor in the documents leads somewhere."""

import re
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import DOCS, PAGES, name
from tests.workshop import PROJECT

#: What commands write, and a checkout does not have.
WRITTEN = "benchmarks/results/"


def prose(page: Path) -> str:
    """Return a page's text without code blocks and code spans."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts and MkDocs both make them."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in link]


LINKS = [pytest.param(page, link, id=f"{name(page)}: {link}") for page in PAGES for link in links(page)]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_every_relative_link_leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists()
    assert not anchor or anchor in anchors(target)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_that_a_page_names_exists(page):
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    named = re.findall(r"`((?:pipeline|serving|tests|docs|benchmarks)/[\w./-]*)`", text)
    missing = [path for path in named if not (PROJECT / path).exists() and not path.startswith(WRITTEN)]
    assert not missing


def test_every_page_is_in_the_sites_navigation():
    # The rest of the file has tags of Python's, which safe_load rejects.
    _, _, navigation_text = (PROJECT / "mkdocs.yml").read_text().partition("\nnav:")
    navigation = yaml.safe_load(navigation_text)
    listed = {entry for section in navigation for entry in leaves(section)}
    assert listed == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def leaves(entry):
    """Yield the paths in a part of MkDocs' navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for each in entry.values() if isinstance(entry, dict) else entry:
            yield from leaves(each)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_of_the_site_links_to_nothing_outside_it(page):
    """MkDocs cannot follow links out of `docs/`; pages name such files instead."""
    outside = [link for link in links(page) if DOCS not in (page.parent / link.partition("#")[0]).resolve().parents]
    assert DOCS not in page.parents or not outside


def test_the_readme_has_at_most_200_lines():
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 200
