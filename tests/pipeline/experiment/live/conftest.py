"""Fixtures: a registry whose version 1 is in Production, version 2 beside it, and servers that record."""

import mlflow
import pytest

from tests.pipeline.experience.recording import MODEL
from tests.pipeline.experiment.live.world import World
from tests.serving.store import Store


@pytest.fixture
def registry(store, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(store / "cache"))
    registry = Store(mlflow.get_tracking_uri(), store)
    registry.register(MODEL, stage="Production")
    registry.register(MODEL)
    return registry


@pytest.fixture
def world(registry):
    return World(registry.directory).open()
