import json

import mlflow
import numpy as np
import pytest

from pipeline.experience.compaction.run import CompactOptions, compact
from pipeline.experience.dataset import CONTEXT, ExperienceDataset, log_experience
from pipeline.experience.progress import StageProgress
from pipeline.experience.whole_episodes import WholeEpisodes
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


@pytest.fixture
def episodes(mlflow_store):
    """Three episodes of one step, two of version 3 and one of version 4, of which one ended reportedly."""
    experience = open_store(str(mlflow_store / "experience"))
    tables = [
        decision_table(
            spec(version),
            [Decision(name, 0, 9000.0, {"observations": np.zeros(4)}, {"action": 0}) for name in names],
            segment=version,
        )
        for version, names in ((3, "ab"), (4, "c"))
    ]
    events = [Feedback("a", 8000.0, {0: 2.0}, 2.0, 1, "terminated")]
    write_segment(experience, tables, feedback_table(events))
    with StageProgress() as progress:
        compact(experience, MODEL, CompactOptions(), progress, NOW_NS)
    return WholeEpisodes.open(experience, MODEL)


def test_a_run_shows_the_episodes_as_its_input(mlflow_store, episodes):
    with mlflow.start_run() as run:
        mlflow.log_input(ExperienceDataset(episodes), context=CONTEXT)
    (found,) = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "experience"}
    assert (found.dataset.name, found.dataset.digest) == ("experience of cartpole-ppo", episodes.digest)
    assert found.dataset.source_type == "local"
    location = f"{mlflow_store}/experience/episodes/cartpole-ppo/{episodes.digest}"
    assert json.loads(found.dataset.source) == {"uri": location}
    assert json.loads(found.dataset.profile) == {
        "episodes": 3,
        "decisions": 3,
        "return_mean": pytest.approx(2 / 3),
        "length_mean": 1.0,
        "episodes_by_version": {"3": 2, "4": 1},
        "episodes_by_end": {"terminated": 1, "unreported": 2},
    }
    columns = {each["name"]: each for each in json.loads(found.dataset.schema)["mlflow_colspec"]}
    assert columns["obs"]["items"] == {"type": "float"}
    assert (columns["actions"]["type"], columns["rewards"]["type"]) == ("long", "double")
    assert (columns["time"]["type"], columns["version"]["type"]) == ("datetime", "integer")
    assert not columns["action_logp"]["required"]


def test_a_run_names_the_versions_that_its_experience_came_from(episodes):
    run = mlflow.MlflowClient().create_run("0")
    log_experience(run.info.run_id, episodes)
    logged = mlflow.get_run(run.info.run_id)
    lineage = {"experience.digest": episodes.digest, "experience.versions": "3, 4"}
    assert {key: logged.data.tags[key] for key in lineage} == lineage
    (found,) = logged.inputs.dataset_inputs
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "experience", **lineage}


def test_the_location_has_no_credentials(episodes):
    secret = WholeEpisodes(
        type(episodes.store)("s3://key:secret@bucket/path/", episodes.store.filesystem, None),
        episodes.model,
        episodes.digest,
        episodes.layout,
        episodes.content,
    )
    dataset = ExperienceDataset(secret)
    assert dataset.source.uri == f"s3://***@bucket/path/episodes/cartpole-ppo/{episodes.digest}"
    assert dataset.to_dict()["source_type"] == "s3"
