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
def recorded(store: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., WholeEpisodes]:
    """Return a function that registers a policy with spaces, and records and compacts episodes of its versions."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(store / "cache"))

    def make(truths: list[Truth], observation_space: Any, action_space: Any) -> WholeEpisodes:
        registry = Store(f"sqlite:///{store}/mlflow.db", store)
        for _ in range(max(truth.version for truth in truths)):
            registry.register(MODEL, bundle_of(observation_space, action_space))
        return whole_episodes(store / "experience", truths, observation_space, action_space)

    return make
