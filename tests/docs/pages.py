"""Reads the documents: their pages, code blocks, commands and tables."""

import re
from pathlib import Path

from tests.workshop import PROJECT

DOCS = PROJECT / "docs"
TUTORIAL = DOCS / "tutorial" / "first-policy.md"
OWN_ENVIRONMENT = DOCS / "tutorial" / "own-environment.md"

#: Every page, the tutorial first: the commands of later pages need the version that it trains.
PAGES = [
    TUTORIAL,
    *sorted(page for page in DOCS.rglob("*.md") if page != TUTORIAL),
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]


def name(page: Path) -> str:
    """Return the path of a page, relative to the project."""
    return str(page.relative_to(PROJECT))


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the contents of a page's code blocks in any of the languages, without their indentation."""
    found = re.findall(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [
        re.sub(rf"^{indent}", "", block, flags=re.MULTILINE)
        for indent, language, block in found
        if language in languages
    ]


def commands(page: Path, *languages: str) -> list[str]:
    """Return the command lines of a page, with lines that end in a backslash joined."""
    text = "\n".join(blocks(page, *languages)).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def commands_to_run() -> list[str]:
    """Return the lines of the `bash` blocks of `docs/`, but for the tutorial with an environment of one's own.

    They are run against a server; the lines of `sh` blocks are only parsed.
    """
    return [line for page in _documents() if page != OWN_ENVIRONMENT for line in commands(page, "bash")]


def examples_to_run() -> list[str]:
    """Return the `python` blocks of `docs/`; the `py` blocks need what a server does not offer by default."""
    return [block for page in _documents() for block in blocks(page, "python")]


def _documents() -> list[Path]:
    return [page for page in PAGES if DOCS in page.parents]


def rows(page: Path, first_column: str) -> list[list[str]]:
    """Return the cells of each row of the page's table whose header begins with this column."""
    table = page.read_text().split(f"| {first_column} |", 1)[1].split("\n\n", 1)[0]
    lines = [line for line in table.splitlines()[2:] if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
