"""What a replica runs to record experience."""

import logging
from dataclasses import dataclass
from pathlib import Path

from serving.errors import redacted
from serving.experience.conversion.supervisor import ConverterSupervisor
from serving.experience.episodes import EpisodeHasher
from serving.experience.errors import KeyFileInvalid
from serving.experience.journal.journal import Journal, Recording
from serving.experience.journal.sampling import Sample
from serving.experience.journal.segments import Place
from serving.experience.options import Full, Observations
from serving.telemetry.logs import LogFormat

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


class Experience:
    """The journal of one replica, and the process of its node that turns journals into tables.

    Args:
        settings: what is recorded.
        cache: the directory of the bundle cache on this node.
        scope: names the files of the application on this node.
        replica: the replica's identifier.
        header: what each segment says of its origin.
        log_format: the format of the converter's log.

    Raises:
        KeyFileInvalid: the file with the key cannot be read, or is too short.
    """

    def __init__(
        self,
        settings: ExperienceSettings,
        cache: Path,
        scope: str,
        replica: str,
        header: dict[str, str],
        log_format: LogFormat = "text",
    ) -> None:
        directory = cache / "experience" / scope
        hashed = EpisodeHasher(read_key(settings.key_file) if settings.key_file else b"")
        recording = Recording(settings.observations, Sample(settings.sample), refuses=settings.full == "refuse")
        self._converter = ConverterSupervisor(directory, settings.uri, cache, log_format)
        place = Place(directory, replica, header, settings.max_bytes)
        self.journal = Journal(place, recording, hashed, tick=self._converter.tick)
        logger.info("decisions are recorded in %s, and become tables in %s", directory, redacted(settings.uri))

    def start(self) -> None:
        """Record from now on."""
        self.journal.start()

    def stop(self) -> None:
        """Close the journal, and give the converter a few seconds for what is left."""
        self.journal.stop()
        self._converter.stop()


def read_key(file: str | Path) -> bytes:
    """Return the key of episode hashes in a file, without surrounding whitespace. Raises KeyFileInvalid."""
    try:
        key = Path(file).read_bytes().strip()
    except OSError as error:
        raise KeyFileInvalid(str(file), error.strerror or str(error)) from error
    if len(key) < SHORTEST_KEY:
        raise KeyFileInvalid(str(file), f"it has {len(key)} bytes, expected at least {SHORTEST_KEY}")
    return key
