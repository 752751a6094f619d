"""Fixtures: an empty store of experience, and a function that compacts it."""

import io

import pytest
from rich.console import Console

from pipeline.experience.compaction.run import CompactOptions, compact
from pipeline.experience.progress import StageProgress
from serving.experience.store import open_store
from tests.pipeline.experience.recording import MODEL, NOW_NS


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "experience"))


@pytest.fixture
def quiet():
    """Progress that nobody sees."""
    with StageProgress(Console(file=io.StringIO())) as progress:
        yield progress


@pytest.fixture
def compacted(store, quiet):
    """Return a function of options that compacts the store as of NOW_NS."""
    return lambda **options: compact(store, MODEL, CompactOptions(**options), quiet, NOW_NS)
