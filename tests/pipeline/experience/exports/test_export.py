import json
import sys

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from pipeline.experience.exports.errors import (
    DirectoryNotEmpty,
    DirectoryUnwritable,
    ExportPackageMissing,
    NothingToExport,
    ObservationsNotRecorded,
    RewardsUnreported,
    SpaceNotExportable,
    VersionNotExportable,
)
from pipeline.experience.exports.export import export
from serving.experience.journal.records import DIGESTS, OMITTED
from serving.experience.store import open_store
from serving.registry.errors import ModelUnknown
from tests.pipeline.experience.exports.recorded import bundle_of, compacted, random_episode, record, whole_episodes
from tests.pipeline.experience.recording import MODEL
from tests.serving.policies import CARTPOLE, ROBOT
from tests.serving.store import Store

DISCRETE = spaces.Discrete(2)


def episode(name, length=3, **changes):
    return random_episode(name, CARTPOLE, DISCRETE, length, **changes)


def lengths(directory):
    """The number of actions of each episode in an export for Minari, by episode id."""
    (file,) = directory.rglob("main_data.hdf5")
    with h5py.File(file) as content:
        return {group.attrs["episode"]: len(group["actions"]) for group in content.values()}


@pytest.fixture
def exported(recorded, tmp_path):
    """Return a function that exports episodes of CartPole for Minari: the result, and the lengths by id."""

    def run(truths, **options):
        result = export(recorded(truths, CARTPOLE, DISCRETE), "minari", tmp_path / "out", **options)
        return result.counts, lengths(tmp_path / "out")

    return run


def test_the_export_says_where_it_comes_from(recorded, tmp_path):
    whole = recorded([episode("one"), episode("two", version=2)], CARTPOLE, DISCRETE)
    result = export(whole, "minari", tmp_path / "out")
    about = json.loads((tmp_path / "out" / "export.json").read_text())
    source = {"model": MODEL, "versions": "1, 2", "digest": whole.digest, "source": whole.store.uri}
    assert about == {"format": "minari", **source, "episodes": 2, "steps": 6, "left_out": []}
    assert result.next_step == (
        f"with MINARI_DATASETS_PATH={tmp_path}/out: minari.load_dataset('cartpole-ppo/experience-v0')"
    )


def test_episodes_that_lack_decisions_are_left_out(exported):
    counts, found = exported([episode("whole"), episode("gap", 5, lost_steps={2})])
    assert list(found) == [episode("whole").id]
    assert (counts.episodes, counts.steps, counts.incomplete) == (1, 3, 1)


def test_only_episodes_of_the_chosen_versions_are_exported(exported):
    truths = [episode("one"), episode("two", version=2), episode("three", version=3)]
    counts, found = exported(truths, versions=frozenset({1, 3}))
    assert set(found) == {truths[0].id, truths[2].id}
    assert counts.versions == {1, 3}


def test_a_version_without_episodes_is_one_line(recorded, tmp_path):
    whole = recorded([episode("one"), episode("two", version=2)], CARTPOLE, DISCRETE)
    with pytest.raises(VersionNotExportable, match=r"Version 7 .* can be exported together: 1, 2"):
        export(whole, "minari", tmp_path / "out", versions=frozenset({2, 7}))


def test_an_episode_of_which_another_version_decided_a_part_is_not_one_of_the_chosen_version(recorded, tmp_path):
    """A version is replaced while an episode runs."""
    first, second = episode("mixed", 4, lost_steps={2, 3}), episode("mixed", 4, version=2, lost_steps={0, 1})
    whole = recorded([first, second, episode("pure")], CARTPOLE, DISCRETE)
    counts = export(whole, "minari", tmp_path / "one", versions=frozenset({1})).counts
    assert (counts.episodes, counts.mixed) == (1, 1)
    assert export(whole, "minari", tmp_path / "all").counts.episodes == 2


def test_unreported_rewards_need_a_decision_of_the_user(recorded, tmp_path):
    whole = recorded([episode("told"), episode("untold", reports_rewards=False)], CARTPOLE, DISCRETE)
    with pytest.raises(RewardsUnreported) as raised:
        export(whole, "minari", tmp_path / "out")
    assert (raised.value.unreported, raised.value.episodes) == (1, 2)
    assert not (tmp_path / "out").exists()
    assert list(lengths_of(whole, tmp_path / "drop", "drop")) == [episode("told").id]
    assert len(lengths_of(whole, tmp_path / "keep", "keep")) == 2


def lengths_of(whole, directory, unreported):
    export(whole, "minari", directory, unreported=unreported)
    return lengths(directory)


def test_without_a_final_observation_a_terminated_episode_stays_and_a_truncated_one_is_a_step_shorter(exported):
    truths = [
        episode("terminated", 4, reports_final=False),
        episode("truncated", 4, done="truncated", reports_final=False),
        episode("short", 1, done="truncated", reports_final=False),
    ]
    counts, found = exported(truths)
    assert found == {truths[0].id: 4, truths[1].id: 3}
    assert (counts.shortened, counts.single) == (1, 1)


def test_the_last_observation_stands_for_an_unreported_terminal_one(recorded, tmp_path):
    truth = episode("terminated", 4, reports_final=False)
    export(recorded([truth], CARTPOLE, DISCRETE), "minari", tmp_path / "out")
    (file,) = (tmp_path / "out").rglob("main_data.hdf5")
    with h5py.File(file) as content:
        found = content["episode_0"]["observations"][()]
    assert np.array_equal(found, np.stack([*truth.observations[:4], truth.observations[3]]))


@pytest.mark.parametrize(
    ("setting", "flags", "recorded_space"),
    [("none", OMITTED, CARTPOLE), ("digest", DIGESTS, spaces.Box(0, 255, (16,), np.uint8))],
    ids=["none", "digest"],
)
def test_without_observations_there_is_nothing_to_export(mlflow_store, tmp_path, setting, flags, recorded_space):
    Store(f"sqlite:///{mlflow_store}/mlflow.db", mlflow_store).register(MODEL, bundle_of(CARTPOLE, DISCRETE))
    experience = open_store(str(mlflow_store / "experience"))
    record(experience, [random_episode("one", recorded_space, DISCRETE, 3)], recorded_space, DISCRETE, flags=flags)
    with pytest.raises(ObservationsNotRecorded, match=f"experience_observations: {setting}"):
        export(compacted(experience), "minari", tmp_path / "out")


@pytest.mark.parametrize(
    ("observation_space", "action_space", "role"),
    [
        (ROBOT, DISCRETE, "observation"),
        (spaces.Discrete(5), DISCRETE, "observation"),
        (CARTPOLE, spaces.Tuple([DISCRETE, DISCRETE]), "action"),
        (CARTPOLE, spaces.MultiDiscrete([2, 2]), "action"),
        (CARTPOLE, spaces.Discrete(2, start=1), "action"),
        (CARTPOLE, spaces.Box(-1, 1, (2, 2)), "action"),
    ],
    ids=str,
)
def test_a_space_that_d3rlpy_has_no_form_for_is_one_line(recorded, tmp_path, observation_space, action_space, role):
    whole = recorded([random_episode("one", observation_space, action_space, 2)], observation_space, action_space)
    with pytest.raises(SpaceNotExportable, match=f"d3rlpy cannot take the {role} space") as raised:
        export(whole, "d3rlpy", tmp_path / "out")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("library", "package"), [("minari", "h5py"), ("d3rlpy", "h5py"), ("rllib", "msgpack_numpy")])
def test_a_missing_package_is_named(recorded, tmp_path, monkeypatch, library, package):
    whole = recorded([episode("one")], CARTPOLE, DISCRETE)
    monkeypatch.setitem(sys.modules, package, None)
    expected = rf"the package {package.replace('_', '-')}, which is not installed: pip install 'cartpole-ppo\[exports]'"
    with pytest.raises(ExportPackageMissing, match=expected):
        export(whole, library, tmp_path / "out")


def test_an_existing_export_is_not_replaced(recorded, tmp_path):
    whole = recorded([episode("one")], CARTPOLE, DISCRETE)
    export(whole, "minari", tmp_path / "out")
    with pytest.raises(DirectoryNotEmpty):
        export(whole, "minari", tmp_path / "out")
    with pytest.raises(DirectoryNotEmpty):
        export(whole, "minari", tmp_path / "out" / "export.json")


def test_an_export_that_fails_leaves_nothing_behind(recorded, tmp_path):
    whole = recorded([episode("gap", 5, lost_steps={2})], CARTPOLE, DISCRETE)
    with pytest.raises(NothingToExport, match="1 incomplete, as they lack decisions"):
        export(whole, "minari", tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_directory_that_cannot_be_written_is_named(recorded, tmp_path):
    whole = recorded([episode("one")], CARTPOLE, DISCRETE)
    (tmp_path / "file").touch()
    with pytest.raises(DirectoryUnwritable):
        export(whole, "minari", tmp_path / "file" / "inner" / "out")


def test_the_spaces_come_from_the_registry(mlflow_store, tmp_path):
    whole = whole_episodes(mlflow_store / "experience", [episode("one")], CARTPOLE, DISCRETE)
    with pytest.raises(ModelUnknown):
        export(whole, "minari", tmp_path / "out")


def test_the_progress_counts_every_episode(recorded, tmp_path):
    whole = recorded([episode("one"), episode("two")], CARTPOLE, DISCRETE)
    calls = []
    export(whole, "minari", tmp_path / "out", begin=calls.append, advance=lambda: calls.append("episode"))
    assert calls == [2, "episode", "episode"]
