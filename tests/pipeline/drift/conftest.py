"""Fixtures: a registered version with a reference, and a store of experience that episodes are recorded to."""

import hashlib
from pathlib import Path

import mlflow
import numpy as np
import pytest

from pipeline.experience.compaction.run import CompactOptions, compact
from pipeline.experience.progress import StageProgress
from pipeline.reference.reference import ReferenceRecorder
from serving.experience.journal.records import DIGESTS
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
from tests.serving.policies import CARTPOLE, CARTPOLE_BUNDLE, digest_tags

STEPS = 8


def observations(seed, shift=0.0):
    """The observations of an episode, on a level of its own."""
    generator = np.random.default_rng(seed)
    steps = generator.normal(size=4) + generator.normal(size=(STEPS, 4)) / 4
    return (steps + np.array([0, shift, 0, 0])).astype(np.float32)


@pytest.fixture
def register(mlflow_store):  # noqa: ARG001  # the store is the current one
    """Return a function that registers a version of CartPole, with a reference of 60 episodes by default."""

    def register(episodes=60):
        client = mlflow.MlflowClient()
        client.create_registered_model(MODEL)
        logged = client.create_logged_model("0", name="policy")
        directory = Path(logged.artifact_location.removeprefix("file://"))
        directory.mkdir(parents=True)
        tags = digest_tags(CARTPOLE_BUNDLE)
        (directory / "model.onnx").write_bytes(CARTPOLE_BUNDLE.graph)
        (directory / "policy.json").write_bytes(CARTPOLE_BUNDLE.policy)
        if episodes:
            content = reference_of(episodes).to_bytes()
            (directory / "reference.json").write_bytes(content)
            tags["sha256.reference.json"] = hashlib.sha256(content).hexdigest()
        return int(client.create_model_version(MODEL, f"models:/{logged.model_id}", tags=tags).version)

    return register


def reference_of(episodes):
    recorder = ReferenceRecorder(CARTPOLE)
    for step in zip(*(observations(1000 + number) for number in range(episodes)), strict=True):
        recorder(range(episodes), step)
    return recorder.reference()


class Recorder:
    """Records whole episodes of version 1, and compacts them."""

    def __init__(self, uri):
        self.store = open_store(str(uri))
        self.segments = 0

    def record(self, count, *, explored=(), mixed=(), lost=(), cut=(), hours_ago=0.0, flags=0, **changes):
        """Record episodes, of which some have sampled actions, decisions of version 2, lack a decision, or an end."""
        self.segments += 1
        names = [f"{self.segments}-{number}" for number in range(count)]
        decisions = {1: [], 2: []}
        for number, name in enumerate(names):
            rows = observations(100_000 * self.segments + number, **changes)
            for step in range(1 if number in cut else STEPS):
                seen = np.zeros(16, np.uint8) if flags & DIGESTS else rows[step]
                at = 3600 * hours_ago + 1000 - step
                made = Decision(name, step, at, {"observations": seen}, {"action": 0}, explored=number in explored)
                if not (number in lost and step == 3):
                    decisions[2 if number in mixed and step > 4 else 1].append(made)
        tables = [
            decision_table(spec(version), made, segment=self.segments, flags=flags)
            for version, made in decisions.items()
            if made
        ]
        events = [
            Feedback(name, 3600 * hours_ago + 900, total=float(STEPS), length=STEPS, done="terminated")
            for number, name in enumerate(names)
            if number not in cut
        ]
        write_segment(self.store, tables, feedback_table(events, segment=self.segments), self.segments)
        with StageProgress() as progress:
            compact(self.store, MODEL, CompactOptions(), progress, NOW_NS)


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path / "experience")
