"""A recording shows one greedy episode in the environment's own time."""

import dataclasses
import json

import gymnasium
import pytest
from PIL import Image

from pipeline.bundle.assemble import describe
from pipeline.evaluation import evaluation, recording
from pipeline.evaluation.player import Player
from pipeline.export.onnx_graph import to_onnx
from serving.policy.bundle import GRAPH_FILE, POLICY_FILE


@pytest.fixture(scope="module")
def policy(cartpole, build_policy):
    return build_policy(cartpole)


@pytest.fixture(scope="module")
def bundle(cartpole, policy, tmp_path_factory):
    directory = tmp_path_factory.mktemp("bundle")
    (directory / GRAPH_FILE).write_bytes(to_onnx(policy))
    (directory / POLICY_FILE).write_text(json.dumps(describe(cartpole, policy)))
    return directory


def test_the_recording_shows_the_episode_of_the_seed(cartpole, policy, bundle, tmp_path):
    """CartPole runs at 50 frames per second, the recording at 12.5: one image for every fourth step, and the first."""
    assert recording.record(bundle, cartpole, 5, tmp_path / "episode.gif")
    steps = evaluation.play(Player.exportable(policy), cartpole, 1, first_seed=5).returns[0]
    with Image.open(tmp_path / "episode.gif") as image:
        assert image.format == "GIF"
        assert image.n_frames == 1 + steps // 4
        assert image.width == 300
        assert image.info["duration"] == 80
        assert "loop" in image.info


def test_a_recording_lasts_at_most_10_s(cartpole, balance, monkeypatch):
    monkeypatch.setattr(recording, "_FRAMES", 10)
    assert len(recording._frames(balance, cartpole, seed=0)) == 10


def test_an_environment_without_images_has_no_recording(cartpole, bundle, tmp_path):
    blind = dataclasses.replace(cartpole, render_modes=("human",))
    assert not recording.record(bundle, blind, 5, tmp_path / "episode.gif")
    assert not (tmp_path / "episode.gif").exists()


@pytest.mark.parametrize("error", [ImportError, gymnasium.error.DependencyNotInstalled])
def test_a_missing_package_for_images_leaves_no_recording(cartpole, bundle, tmp_path, monkeypatch, error):
    def make(_environment, **_):
        raise error

    monkeypatch.setattr(type(cartpole), "make", make)
    assert not recording.record(bundle, cartpole, 5, tmp_path / "episode.gif")
