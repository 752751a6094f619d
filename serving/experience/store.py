"""Where experience is kept: a local directory, or S3 (`s3://bucket/path`) through pyarrow."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from serving.experience.errors import ExperienceUriInvalid, StoreUnavailable

S3_ENDPOINTS = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""The variables with the endpoint of an S3 server other than Amazon's, in the order in which MLflow looks."""
TIMEOUT_S = 10.0

ABANDONED_AFTER_S = 3600.0
"""Unfinished files that are older than this belong to processes that were killed."""

_TEMPORARY = ".writing-"


@dataclass(frozen=True)
class Store:
    """Files below a root. Each appears whole: a reader never sees a part of one.

    All methods raise StoreUnavailable if the store cannot be reached or written.
    """

    uri: str
    filesystem: Any
    """A `pyarrow.fs.FileSystem` with the root as its top."""
    local: Path | None
    """The root if it is a local directory."""

    def write(self, path: str, content: bytes) -> None:
        """Write a file in one step, in place of the one that is there."""
        with self._errors(writes=True):
            if self.local is None:
                with self.filesystem.open_output_stream(
                    path
                ) as stream:  # an object appears when its upload is complete
                    stream.write(content)
                return
            file = self.local / path
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=file.parent)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, file)  # noqa: PTH105 - of a name that mkstemp returned
                self._sync_directories(file.parent)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108 - as above
                raise

    def delete_abandoned(self, directory: str) -> None:
        """Delete the files in a local directory that a process began to write and was killed before it had."""
        if self.local is None:  # an object of S3 that is not complete is none
            return
        with self._errors():
            for temporary in (self.local / directory).glob(f"{_TEMPORARY}*"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - temporary.stat().st_mtime > ABANDONED_AFTER_S:
                        temporary.unlink()

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises FileNotFoundError."""
        with self._errors(), self.filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""
        with self._errors(), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(path)

    def files(self, directory: str, suffix: str = "") -> Iterator[str]:
        """Yield the paths of the files below a directory, sorted; none if there is no such directory."""
        import pyarrow.fs

        with self._errors():
            found = self.filesystem.get_file_info(
                pyarrow.fs.FileSelector(directory, recursive=True, allow_not_found=True)
            )
        for info in sorted(found, key=lambda each: str(each.path)):
            name = str(info.path)
            if info.is_file and name.endswith(suffix) and not info.base_name.startswith("."):
                yield name

    def _sync_directories(self, directory: Path) -> None:
        """Write the names in a directory, and in those above it up to the root, to the disk: a file needs them, too."""
        for each in (directory, *directory.parents):
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if each == self.local:
                break

    @contextlib.contextmanager
    def _errors(self, *, writes: bool = False) -> Iterator[None]:
        """Raise StoreUnavailable for what fails. Only a read can miss its file; a write misses its bucket."""
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not writes:
                raise
            raise StoreUnavailable(self.uri, str(error)) from error


def check_uri(uri: str) -> None:
    """Raise ExperienceUriInvalid unless the URI is one of a kind that `open_store` opens. It has no credentials."""
    parts = urlsplit(uri)
    is_bucket = (
        parts.scheme == "s3" and parts.netloc and "@" not in parts.netloc and not (parts.query or parts.fragment)
    )
    if not (is_bucket or (parts.scheme in {"", "file"} and not parts.netloc and uri)):
        raise ExperienceUriInvalid(uri)


def open_store(uri: str) -> Store:
    """Open a store: `/path`, `file:///path` or `s3://bucket/path`. A local directory is created.

    Credentials of S3 come from the environment, as for MLflow: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and
    one of S3_ENDPOINTS for servers other than Amazon's.

    Raises:
        ExperienceUriInvalid: the URI is of another kind.
        StoreUnavailable: the directory cannot be created.
    """
    import pyarrow.fs

    check_uri(uri)
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        endpoint = next(filter(None, map(os.environ.get, S3_ENDPOINTS)), None)
        address = urlsplit(endpoint) if endpoint else None
        options = {"endpoint_override": address.netloc, "scheme": address.scheme} if address else {}
        s3 = pyarrow.fs.S3FileSystem(request_timeout=TIMEOUT_S, connect_timeout=TIMEOUT_S, **options)
        return Store(uri, pyarrow.fs.SubTreeFileSystem(parts.netloc + parts.path.rstrip("/"), s3), None)
    root = Path(parts.path if parts.scheme else uri).absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(uri, error.strerror or str(error)) from error
    return Store(uri, pyarrow.fs.SubTreeFileSystem(str(root), pyarrow.fs.LocalFileSystem()), root)
