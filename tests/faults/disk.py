"""A small disk that fills up or turns read-only."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(directory: Path, size: str) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--all-targets", "--lazy", str(directory)], check=True)


def spoil(cache: Path, fault: str) -> None:
    if fault == "full":
        with contextlib.suppress(OSError), (cache / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b" " * 512)
    else:
        # Another mount of the same directory: a disk with files that are open for writing cannot become read-only.
        for command in (("--bind", cache, cache), ("-o", "remount,bind,ro", cache)):
            subprocess.run(["mount", *map(str, command)], check=True)


def mend(cache: Path, fault: str) -> None:
    if fault == "full":
        (cache / "filler").unlink()
    else:
        subprocess.run(["umount", str(cache)], check=True)
