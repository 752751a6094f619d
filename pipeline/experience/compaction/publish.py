"""Puts whole episodes into the store: the files below their digest, then current.json, then old files go."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.experience.errors import ExperienceChanged
from pipeline.experience.whole_episodes import current_file, directory_of
from serving.experience.store import Store

_GENERATION_FILE = "generation.json"
_DIGEST_CHARACTERS = 32  # MLflow takes digests of datasets of up to 36 characters.


def generation(store: Store) -> bytes:
    """Return what `forget` replaces when it changes raw files, so that a compaction notices."""
    try:
        return store.read(_GENERATION_FILE)
    except FileNotFoundError:
        return b""


def renew_generation(store: Store) -> None:
    """Make compactions that have begun refuse to publish what they read."""
    store.write(_GENERATION_FILE, json.dumps({"generation": uuid.uuid4().hex}).encode())


def digest_of(files: dict[str, str]) -> str:
    """Return the digest of a set of files, given their sha256 by name."""
    lines = "".join(f"{name} {files[name]}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def sha256_of(file: Path) -> str:
    """Return the hex sha256 of a local file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def publish(store: Store, model: str, directory: Path, content: dict[str, Any], begun: bytes) -> Iterator[str]:
    """Write the files of a local directory, then current.json; yield the name of each file that is written.

    Args:
        store: the store.
        model: the model.
        directory: a local directory with the parts and the summary only.
        content: the content of current.json, with `digest` and `files`.
        begun: the `generation` when the raw files began to be read.

    Raises:
        ExperienceChanged: the raw files were changed meanwhile. Nothing is published.
        StoreUnavailable: the store cannot be written.
    """
    target = f"{directory_of(model)}/{content['digest']}"
    for name in content["files"]:
        store.write(f"{target}/{name}", (directory / name).read_bytes())
        yield name
    if generation(store) != begun:
        delete_others(store, model, current_digest(store, model))
        raise ExperienceChanged(store.uri)
    store.write(current_file(model), json.dumps(content, indent=1).encode())
    delete_others(store, model, content["digest"])


def current_digest(store: Store, model: str) -> str | None:
    """Return the digest in current.json, None if there is none."""
    try:
        return str(json.loads(store.read(current_file(model)))["digest"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def delete_others(store: Store, model: str, digest: str | None) -> None:
    """Delete the files of all digests but one, also those that an interrupted command left."""
    kept = f"{directory_of(model)}/{digest}/"
    for path in store.files(directory_of(model)):
        if path != current_file(model) and not path.startswith(kept):
            store.delete(path)
    if store.local is not None:
        _delete_empty(store.local / directory_of(model))


def _delete_empty(directory: Path) -> None:
    for each in directory.iterdir() if directory.is_dir() else ():
        if each.is_dir() and not any(each.iterdir()):
            each.rmdir()
