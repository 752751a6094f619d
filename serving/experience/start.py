"""Starts the journal of a replica."""

import logging
from dataclasses import dataclass
from pathlib import Path

from serving.experience.episodes import EpisodeHasher
from serving.experience.errors import KeyFileInvalid
from serving.experience.journal.journal import Journal, Recording
from serving.experience.journal.sampling import Sample
from serving.experience.journal.segments import Place
from serving.experience.options import Full, Observations

logger = logging.getLogger(__name__)

SHORTEST_KEY = 16
"""The shortest key of an episode hash, in bytes."""


@dataclass(frozen=True)
class ExperienceSettings:
    """What an application records. The names are those of the server's arguments, without `experience_`."""

    uri: str
    sample: float
    observations: Observations
    max_bytes: int
    full: Full
    key_file: str | None


def start_journal(settings: ExperienceSettings, directory: Path, replica: str, header: dict[str, str]) -> Journal:
    """Return the journal of a replica, which has started.

    Args:
        settings: what is recorded.
        directory: where the segments of all replicas of the application on this node are written.
        replica: the replica's identifier.
        header: what each segment says of its origin.

    Raises:
        KeyFileInvalid: the file with the key cannot be read, or is too short.
    """
    hashed = EpisodeHasher(read_key(settings.key_file) if settings.key_file else b"")
    recording = Recording(settings.observations, Sample(settings.sample), refuses=settings.full == "refuse")
    journal = Journal(Place(directory, replica, header, settings.max_bytes), recording, hashed)
    journal.start()
    logger.info("decisions are recorded in %s", directory)
    return journal


def read_key(file: str | Path) -> bytes:
    """Return the key of episode hashes in a file, without surrounding whitespace. Raises KeyFileInvalid."""
    try:
        key = Path(file).read_bytes().strip()
    except OSError as error:
        raise KeyFileInvalid(str(file), error.strerror or str(error)) from error
    if len(key) < SHORTEST_KEY:
        raise KeyFileInvalid(str(file), f"it has {len(key)} bytes, expected at least {SHORTEST_KEY}")
    return key
