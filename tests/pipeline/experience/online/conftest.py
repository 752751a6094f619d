"""Fixtures: episodes that are recorded by and by, and a registered model that they belong to."""

import mlflow
import numpy as np
import pytest

from pipeline.experience.compaction.run import CompactOptions, compact
from pipeline.experience.progress import StageProgress
from serving.experience.store import open_store
from tests.pipeline.experience.recording import (
    MODEL,
    NOW_NS,
    Decision,
    Feedback,
    decision_table,
    feedback_table,
    spec,
    write_segment,
)

NOW_S = NOW_NS // 10**9
"""A whole hour."""


class Recorder:
    """Records episodes of one step, segment by segment, and compacts them."""

    def __init__(self, uri):
        self.store = open_store(str(uri))
        self.segment = 0

    def record(self, *episodes, now_s=NOW_S):
        """Record (version, seconds before NOW_S, return) and compact at a time."""
        self.segment += 1
        names = [f"{self.segment}-{number}" for number in range(len(episodes))]
        tables = [
            decision_table(
                spec(version),
                [
                    Decision(name, 0, at, {"observations": np.zeros(4)}, {"action": 0})
                    for name, (number, at, _) in zip(names, episodes, strict=True)
                    if number == version
                ],
                segment=self.segment,
            )
            for version in sorted({version for version, _, _ in episodes})
        ]
        events = [
            Feedback(name, at, {0: value}, value, 1, "terminated")
            for name, (_, at, value) in zip(names, episodes, strict=True)
        ]
        write_segment(self.store, tables, feedback_table(events, segment=self.segment), self.segment)
        self.compact(now_s)

    def compact(self, now_s):
        with StageProgress() as progress:
            compact(self.store, MODEL, CompactOptions(), progress, now_s * 10**9)


@pytest.fixture
def recorder(mlflow_store):
    return Recorder(mlflow_store / "experience")


@pytest.fixture
def registered(mlflow_store):
    """Three versions of a registered model, each with a logged model, trained in an experiment of their own."""
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("training", artifact_location=str(mlflow_store / "artifacts"))
    run = client.create_run(experiment)
    client.create_registered_model(MODEL, description="What a person wrote.")
    for _ in range(3):
        logged = client.create_logged_model(experiment, name="policy", source_run_id=run.info.run_id)
        client.create_model_version(MODEL, f"models:/{logged.model_id}", run.info.run_id)
    return experiment
