"""The raw tables of a store of experience, as the servers' nodes write them: manifests and the files that they list.

A manifest is written after the files of its segment. A file that no manifest lists belongs to a segment whose
conversion has not ended, and is not read.
"""

import contextlib
import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from pipeline.experience.errors import ModelNotRecorded, NoExperience, RawDamaged, S3Unusable, SeveralModels
from serving.experience.errors import StoreUnavailable
from serving.experience.store import Store, check_uri, open_store
from serving.experience.tables import model_directory

DECISIONS, FEEDBACK, MANIFESTS, EPISODES = "decisions", "feedback", "manifests", "episodes"
"""The directories below the experience URI."""

RENEWING = "renewing"
"""The key of a manifest whose files are being rewritten: their digests are written when that is done."""

_READERS = 8
_LARGE_FILE = 2**18
"""The size in bytes from which on a file is read by several threads."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class RawFile:
    """A Parquet file that a manifest lists."""

    path: str
    sha256: str
    rows: int

    @property
    def is_decisions(self) -> bool:
        """Whether it holds decisions; feedback otherwise."""
        return self.path.startswith(DECISIONS + "/")

    def content(self, store: Store) -> bytes | None:
        """Return its bytes, None if it is gone or does not have its digest. Raises StoreUnavailable."""
        try:
            content = store.read(self.path)
        except FileNotFoundError:
            return None
        return content if hashlib.sha256(content).hexdigest() == self.sha256 else None

    def read(self, store: Store) -> pa.Table | None:
        """Return its table, None if it is gone or damaged. Raises StoreUnavailable."""
        return table_of(self.content(store))


@dataclass(frozen=True)
class Manifest:
    """What a converter wrote of one segment."""

    path: str
    content: dict[str, Any]

    @property
    def files(self) -> list[RawFile]:
        """The files of the segment."""
        return [RawFile(path, each["sha256"], int(each.get("rows", 0))) for path, each in self.content["files"].items()]

    @property
    def dropped(self) -> tuple[int, int]:
        """How many decisions and feedback events the replica could not record."""
        dropped = self.content.get("dropped") or {}
        return int(dropped.get("decisions", 0)), int(dropped.get("feedback", 0))

    @property
    def lost_bytes(self) -> int:
        """Bytes of the segment that could not be read."""
        return int(self.content.get("lost_bytes", 0))

    @property
    def versions(self) -> dict[int, dict[str, Any]]:
        """The counts of each version: `decisions`, and `audit` by outcome."""
        return {int(version): counts for version, counts in self.content["versions"].items()}

    @property
    def time(self) -> tuple[int, int] | None:
        """The first and the last time in the segment, in ns since 1970; None if the segment is empty."""
        found = self.content.get("time")
        return (int(found[0]), int(found[1])) if found else None


@dataclass(frozen=True)
class Raw:
    """The raw files of one model."""

    model: str
    manifests: Sequence[Manifest]
    unlisted: Sequence[str]
    """Files that no manifest lists."""

    @cached_property
    def files(self) -> list[RawFile]:
        """The files that the manifests list, in the order of their paths."""
        return sorted((file for each in self.manifests for file in each.files), key=lambda file: file.path)


def table_of(content: bytes | None) -> pa.Table | None:
    """Return the table in the bytes of a Parquet file, None if there are none or they are damaged."""
    if content is None:
        return None
    try:
        # In a small file, handing the columns to threads takes longer than reading them.
        return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=len(content) > _LARGE_FILE)
    except pa.ArrowInvalid:
        return None


def open_experience(uri: str) -> Store:
    """Open a store that must exist. Raises ExperienceUriInvalid, NoExperience, StoreUnavailable."""
    check_uri(uri)
    parts = urlsplit(uri)
    if parts.scheme != "s3" and not Path(parts.path if parts.scheme else uri).is_dir():
        raise NoExperience(uri, "there is no such directory")
    return open_store(uri)


@contextlib.contextmanager
def s3_explained(uri: str) -> Iterator[None]:
    """Raise S3Unusable, which names what to check, for what fails in the block if the URI is one of S3."""
    try:
        yield
    except StoreUnavailable as error:
        if not uri.startswith("s3://"):
            raise
        raise S3Unusable(uri, error.reason) from error


def models_of(store: Store) -> list[str]:
    """Return the models that experience is recorded of. Raises NoExperience, StoreUnavailable."""
    models = {unquote(each) for directory in (MANIFESTS, EPISODES) for each in _subdirectories(store, directory)}
    if not models:
        reason = f"it has no directory '{MANIFESTS}' with a model"
        if _subdirectories(store, DECISIONS):
            reason = "no segment of a journal is converted to the end yet"
        raise NoExperience(store.uri, reason)
    return sorted(models)


def choose_model(store: Store, model: str | None) -> str:
    """Return the model if it is recorded, by default the only one.

    Raises:
        NoExperience: nothing is recorded at the URI.
        ModelNotRecorded: the model is not among those recorded.
        SeveralModels: none is given, and several are recorded.
        StoreUnavailable: the store cannot be read.
    """
    models = models_of(store)
    if model is None and len(models) > 1:
        raise SeveralModels(store.uri, ", ".join(models))
    if model is not None and model not in models:
        raise ModelNotRecorded(store.uri, model, ", ".join(models))
    return model or models[0]


def read_raw(store: Store, model: str) -> Raw:
    """Read the manifests of a model. Raises RawDamaged, StoreUnavailable."""
    directory = model_directory(model)
    paths = list(store.files(f"{MANIFESTS}/{directory}", ".json"))
    manifests = [manifest for manifest in in_order(lambda path: read_manifest(store, path), paths) if manifest]
    listed = {path for each in manifests for path in each.content["files"]}
    present = [path for kind in (DECISIONS, FEEDBACK) for path in store.files(f"{kind}/{directory}", ".parquet")]
    return Raw(model, manifests, [path for path in present if path not in listed])


def read_manifest(store: Store, path: str) -> Manifest | None:
    """Return a manifest, None if it is gone. Raises RawDamaged, StoreUnavailable."""
    try:
        content = json.loads(store.read(path))
        content["files"] = {
            str(path): dict(each) | {"sha256": str(each["sha256"])} for path, each in content["files"].items()
        }
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RawDamaged(path, f"it is no manifest ({error!r})") from error
    return Manifest(path, content)


def delete_older(store: Store, model: str, keep_days: int, now_ns: int) -> int:
    """Delete the raw files of days more than `keep_days` days ago; return how many. Manifests go first."""
    first = (datetime.fromtimestamp(now_ns / 1e9, UTC) - timedelta(days=keep_days)).date().isoformat()
    deleted = 0
    for kind in (MANIFESTS, DECISIONS, FEEDBACK):
        for path in store.files(f"{kind}/{model_directory(model)}"):
            day = path.split("/")[-2]
            if _DAY.fullmatch(day) and day < first:
                store.delete(path)
                deleted += 1
    return deleted


def in_order(function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int = _READERS) -> Iterator[_Result]:
    """Yield the function's results in order, computed by threads that are at most `ahead` items ahead."""
    with ThreadPoolExecutor(_READERS) as pool:
        pending: deque[Any] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for each in pending:
                each.cancel()


def _subdirectories(store: Store, directory: str) -> list[str]:
    selector = pyarrow.fs.FileSelector(directory, allow_not_found=True)
    try:
        found = store.filesystem.get_file_info(selector)
    except OSError as error:
        raise StoreUnavailable(store.uri, str(error)) from error
    return [info.base_name for info in found if info.type == pyarrow.fs.FileType.Directory]
