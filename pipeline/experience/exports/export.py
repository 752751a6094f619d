"""Exports whole episodes into a new directory, which appears when it is complete."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.experience.exports import to_d3rlpy, to_minari, to_rllib
from pipeline.experience.exports.episodes import Counts, Episode, Selection
from pipeline.experience.exports.errors import (
    DirectoryNotEmpty,
    DirectoryUnwritable,
    NothingToExport,
    VersionNotExportable,
)
from pipeline.experience.exports.spaces import PolicySpaces
from pipeline.experience.whole_episodes import WholeEpisodes
from serving.errors import redacted
from serving.registry.tracking import check_tracking_server

FORMATS: dict[str, ModuleType] = {"rllib": to_rllib, "minari": to_minari, "d3rlpy": to_d3rlpy}
"""The modules that write the formats, each with `check`, `write`, `next_step` and `FOLLOWED`."""

ABOUT_FILE = "export.json"
"""The file of an export that says where it comes from."""


@dataclass(frozen=True)
class Exported:
    """A finished export."""

    counts: Counts
    next_step: str
    """How to load it with the library."""


def export(
    whole: WholeEpisodes,
    library: str,
    directory: Path,
    *,
    versions: frozenset[int] | None = None,
    unreported: str | None = None,
    begin: Callable[[int], None] = lambda _: None,
    advance: Callable[[], None] = lambda: None,
) -> Exported:
    """Write the whole episodes for a library, and say where they come from in `export.json`.

    Args:
        whole: The whole episodes.
        library: One of FORMATS.
        directory: A directory that does not exist, or is empty.
        versions: The versions whose episodes are exported; None for all.
        unreported: What becomes of episodes with unreported rewards: `keep`, `drop`, or None for an error.
        begin: Is called with the number of episodes before the first is read.
        advance: Is called after each exported episode.

    Raises:
        DirectoryNotEmpty, DirectoryUnwritable: There are files in the directory, or it cannot be written.
        SpaceNotExportable, ExportPackageMissing: As the format's `check`.
        ObservationsNotRecorded, RewardsUnreported: As `Selection`.
        VersionNotExportable: A chosen version has no episodes in `whole`.
        NothingToExport: No episode is left.
        ServingError: If the version that has the spaces cannot be resolved or fetched.
    """
    _require_empty(directory)
    chosen = _chosen(whole, versions)
    check_tracking_server()
    spaces = PolicySpaces.of_version(whole.model, max(chosen))
    form = FORMATS[library]
    form.check(spaces)
    selection = Selection(whole, spaces, versions, unreported)
    about = _about(whole, library, chosen)
    begin(selection.size)
    counts = Counts()
    with _appearing(directory) as temporary:
        form.write(_counted(selection.episodes(counts, followed=form.FOLLOWED), advance), spaces, temporary, about)
        if not counts.episodes:
            raise NothingToExport(whole.model, _reasons(counts))
        (temporary / ABOUT_FILE).write_text(json.dumps(about | _figures(counts), indent=2))
    return Exported(counts, form.next_step(directory, about))


def left_out(counts: Counts) -> list[str]:
    """Return a phrase for each kind of episode that was left out or changed."""
    phrases = {
        "incomplete, as they lack decisions": counts.incomplete,
        "with unreported rewards": counts.unreported,
        "with decisions of other versions": counts.mixed,
        "of one step with an unknown final observation": counts.single,
    }
    return [f"{count} {phrase}" for phrase, count in phrases.items() if count]


def _require_empty(directory: Path) -> None:
    try:
        if directory.exists() and any(directory.iterdir()):
            raise DirectoryNotEmpty(str(directory))
    except NotADirectoryError as error:
        raise DirectoryNotEmpty(str(directory)) from error
    except OSError as error:
        raise DirectoryUnwritable(str(directory), error.strerror or str(error)) from error


@contextlib.contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    """Yield a temporary directory that takes the place of an empty or missing one at the end of the block."""
    temporary = None
    try:
        directory.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.absolute().parent))
        yield temporary
        temporary.chmod(0o755)
        os.replace(temporary, directory)  # noqa: PTH105 - of a name that mkdtemp returned
    except OSError as error:
        raise DirectoryUnwritable(str(directory), error.strerror or str(error)) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _counted(episodes: Iterator[Episode], advance: Callable[[], None]) -> Iterator[Episode]:
    for episode in episodes:
        yield episode
        advance()


def _chosen(whole: WholeEpisodes, versions: frozenset[int] | None) -> list[int]:
    """Return the versions to export, ascending. Raises VersionNotExportable."""
    known = whole.layout.versions
    for version in sorted((versions or frozenset()) - {*known}):
        raise VersionNotExportable(whole.model, version, ", ".join(map(str, known)))
    return sorted(known if versions is None else versions)


def _about(whole: WholeEpisodes, library: str, versions: list[int]) -> dict[str, Any]:
    return {
        "format": library,
        "model": whole.model,
        "versions": ", ".join(map(str, versions)),
        "source": redacted(whole.store.uri),
        "digest": whole.digest,
    }


def _figures(counts: Counts) -> dict[str, Any]:
    return {"episodes": counts.episodes, "steps": counts.steps, "left_out": left_out(counts)}


def _reasons(counts: Counts) -> str:
    return ", ".join(left_out(counts)) or "there is none of these versions"
