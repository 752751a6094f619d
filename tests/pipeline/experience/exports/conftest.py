"""Fixtures: recorded episodes of registered policies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.experience.whole_episodes import WholeEpisodes
from tests.pipeline.experience.exports.recorded import Truth, bundle_of, whole_episodes
from tests.pipeline.experience.recording import MODEL
from tests.serving.store import Store


@pytest.fixture
def recorded(mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., WholeEpisodes]:
    """Return a function that registers a policy with spaces, and records and compacts episodes of its versions."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(mlflow_store / "cache"))

    def make(truths: list[Truth], observation_space: Any, action_space: Any) -> WholeEpisodes:
        registry = Store(f"sqlite:///{mlflow_store}/mlflow.db", mlflow_store)
        for _ in range(max(truth.version for truth in truths)):
            registry.register(MODEL, bundle_of(observation_space, action_space))
        return whole_episodes(mlflow_store / "experience", truths, observation_space, action_space)

    return make
