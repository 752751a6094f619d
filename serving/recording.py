"""Starts the recording of experience that an application's arguments ask for."""

import logging
from pathlib import Path

from serving.arguments import Arguments
from serving.experience.episodes import EpisodeHasher
from serving.experience.errors import KeyFileInvalid
from serving.experience.journal.journal import Journal, Recording
from serving.experience.journal.records import FORMAT
from serving.experience.journal.sampling import Sample
from serving.experience.journal.segments import Place
from serving.registry.node.scope import scope

logger = logging.getLogger(__name__)

SHORTEST_KEY = 16
"""The shortest key of an episode hash, in bytes."""


def start_journal(arguments: Arguments, tracking_uri: str, *, application: str, replica: str) -> Journal | None:
    """Return the journal of a replica, which has started; None if nothing is recorded.

    Raises:
        KeyFileInvalid: the file with the key cannot be read, or is too short.
    """
    if arguments.experience_uri is None:
        return None
    directory = journal_directory(arguments, tracking_uri, application)
    hashed = EpisodeHasher(read_key(arguments.experience_key_file))
    header = {"format": FORMAT, "application": application, "model_uri": arguments.model_uri}
    recording = Recording(
        arguments.experience_observations,
        Sample(arguments.experience_sample),
        refuses=arguments.experience_full == "refuse",
    )
    place = Place(directory, replica, header, arguments.experience_max_bytes)
    journal = Journal(place, recording, hashed)
    journal.start()
    logger.info("decisions are recorded in %s", directory)
    return journal


def journal_directory(arguments: Arguments, tracking_uri: str, application: str) -> Path:
    """Return the directory of an application's segments on this node."""
    return arguments.cache_directory / "experience" / scope(tracking_uri, arguments.model_uri, application)


def read_key(file: str | None) -> bytes:
    """Return the key in a file, without surrounding whitespace; an empty one without a file. Raises KeyFileInvalid."""
    if file is None:
        return b""
    try:
        key = Path(file).read_bytes().strip()
    except OSError as error:
        raise KeyFileInvalid(file, error.strerror or str(error)) from error
    if len(key) < SHORTEST_KEY:
        raise KeyFileInvalid(file, f"it has {len(key)} bytes, expected at least {SHORTEST_KEY}")
    return key
