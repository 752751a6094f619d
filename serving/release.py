"""The release of the code: the project's version, and a hash of the files of this package."""

import functools
import hashlib
import importlib.metadata
import logging
import re
from pathlib import Path

logger = logging.getLogger(__name__)

_COMPUTED = re.compile(r".+\+[0-9a-f]{12}")

PROJECT = "cartpole-ppo"
CODE = {".py", ".html", ".css", ".js"}
"""Suffixes of the files that are code. `config.yaml` is not: a user edits it."""


@functools.cache
def release() -> str:
    """Return the release of the code that this process runs, such as `0.2.0+3f9a1c2b4d5e`.

    The hash differs whenever a file of the package does, so that two commits of one version are two releases. A copy of
    the package that is not installed, such as one that Ray has shipped, has the version 0.
    """
    try:
        version = importlib.metadata.version(PROJECT)
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    return f"{version}+{_hash(Path(__file__).parent)}"


def warn_if_other(deployed: str | None) -> None:
    """Log a warning if `deployed` names another release of the code than that of this process.

    Names that a person chose are not compared.
    """
    if deployed is not None and _COMPUTED.fullmatch(deployed) and deployed != release():
        logger.warning("release %s was deployed, and this node has %s: install it on each node", deployed, release())


def _hash(package: Path) -> str:
    hashed = hashlib.sha256()
    for file in sorted(path for path in package.rglob("*") if path.suffix in CODE):
        content = file.read_bytes()
        hashed.update(f"{file.relative_to(package).as_posix()}\n{len(content)}\n".encode() + content)
    return hashed.hexdigest()[:12]
