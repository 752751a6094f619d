"""A file with the credentials of MLflow and its stores, which processes load into their environment.

Arguments of an application and the environment of a Ray job can be read on Ray's dashboard. The file is read on the
node where it is needed, and its values are in no message, argument or log.
"""

import logging
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ServingError

logger = logging.getLogger(__name__)

PREFIXES = ("MLFLOW_", "AWS_", "AZURE_", "GOOGLE_", "DATABRICKS_", "PG")
"""What the names of settings begin with: MLflow's, those of its artifact stores, and those of PostgreSQL."""

OTHERS = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")

MAX_CHARACTERS = 1 << 20

_LINE = re.compile(rf"""(?:export\s+)?((?:{"|".join(PREFIXES)})[A-Z0-9_]+|{"|".join(OTHERS)})=(.*)""")
_QUOTED = re.compile(r"""(["'])(.*)\1""")


@dataclass(eq=False)
class CredentialsFileInvalid(ServingError):
    """The file with credentials cannot be used. The message has none of its content."""

    file: str
    reason: str

    template = "the credentials file {file} cannot be used: {reason}"


class CredentialsFile:
    """A file with lines `NAME=value`, blank lines and lines that begin with `#`.

    A value is the rest of its line, without the quotes around it if there are any. The file must belong to this user or
    to root, and other users must not be able to read it.
    """

    def __init__(self, file: str | Path) -> None:
        self._file = Path(file)
        self._loaded: tuple[int, ...] = ()
        self._failure = ""

    def load(self) -> None:
        """Set the variables in the environment of this process. Raises CredentialsFileInvalid."""
        os.environ.update(self.read())

    def load_if_changed(self) -> None:
        """Load the file again if it has changed. What cannot be read is logged once, and the values before it stay."""
        try:
            if self._loaded != _identity(self._file.stat()):
                self.load()
            self._failure = ""
        except (OSError, CredentialsFileInvalid) as error:
            if str(error) != self._failure:
                logger.warning("earlier credentials stay in use: %s", error)
            self._failure = str(error)

    def read(self) -> dict[str, str]:
        """Return the values by name. Raises CredentialsFileInvalid."""
        try:
            with open(self._file, encoding="utf-8", opener=_open_at_once) as opened:
                found = os.fstat(opened.fileno())
                self._check_private(found)
                text = opened.read(MAX_CHARACTERS)
        except (OSError, UnicodeDecodeError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or "it is not UTF-8 text"
            raise CredentialsFileInvalid(str(self._file), reason) from None
        lines = enumerate(text.split("\n"), 1)
        values = dict(self._parse(number, line) for number, line in lines if _is_entry(line))
        self._loaded = _identity(found)
        return values

    def _check_private(self, found: os.stat_result) -> None:
        """Check owner and mode. A file of root's may be readable by a group, as a secret of a Kubernetes pod is."""
        if not stat.S_ISREG(found.st_mode):
            raise self._invalid("it is no regular file")
        if found.st_uid not in (0, os.geteuid()):
            raise self._invalid("it belongs to another user")
        mode = stat.S_IMODE(found.st_mode)
        if mode & (stat.S_IRWXO | (stat.S_IRWXG if found.st_uid else stat.S_IWGRP)):
            raise self._invalid(f"other users can use it (mode {mode:04o}). Correct it with chmod 600")

    def _parse(self, number: int, line: str) -> tuple[str, str]:
        matched = _LINE.fullmatch(line.strip())
        if matched is None or "\0" in line:
            known = ", ".join([*(f"{prefix}*" for prefix in PREFIXES), *OTHERS])
            # The line is not shown, because any part of it may be a secret.
            raise self._invalid(f"line {number} is not NAME=value with one of these names: {known}")
        name, value = matched.groups()
        if value[:1] in {'"', "'"}:
            quoted = _QUOTED.fullmatch(value)
            if quoted is None:
                raise self._invalid(f"line {number} has a quote that does not end")
            value = quoted[2]
        return name, value

    def _invalid(self, reason: str) -> CredentialsFileInvalid:
        return CredentialsFileInvalid(str(self._file), reason)


def _open_at_once(file: str, flags: int) -> int:
    """Open a file without waiting, as a named pipe would for its writer."""
    return os.open(file, flags | os.O_NONBLOCK)


def _is_entry(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
