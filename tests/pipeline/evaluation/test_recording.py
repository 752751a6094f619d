"""A recording shows one greedy episode in the environment's own time."""

import dataclasses
import json

import gymnasium
import numpy as np
import pytest
from PIL import Image

from pipeline.bundle.assemble import describe
from pipeline.environments import make as environments
from pipeline.evaluation import evaluation, recording
from pipeline.evaluation.player import Player
from pipeline.export.onnx_graph import to_onnx
from serving.policy.bundle import GRAPH_FILE, POLICY_FILE
from tests.zoo import drawing


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


@pytest.fixture(scope="module")
def zoo_bundle(build_policy, tmp_path_factory):
    """A function of the name of an environment that returns it and the directory of a bundle for it."""

    def build(name):
        environment = environments.describe(f"tests.zoo.drawing:{name}-v0")
        policy, directory = build_policy(environment), tmp_path_factory.mktemp("bundle")
        (directory / GRAPH_FILE).write_bytes(graphs(policy))
        (directory / POLICY_FILE).write_text(json.dumps(describe(environment, policy)))
        return environment, directory

    exported = []

    def graphs(policy):
        if not exported:
            exported.append(to_onnx(policy))
        return exported[0]

    return build


def test_frames_of_any_form_are_recorded_as_what_they_show(zoo_bundle, tmp_path):
    for name in drawing.OTHER_FORMS:
        environment, bundle = zoo_bundle(name)
        assert recording.record(bundle, environment, 0, tmp_path / "episode.gif"), name
        with Image.open(tmp_path / "episode.gif") as image:
            pixels = np.asarray(image.convert("RGB"))
        assert pixels.shape == (225, 300, 3), name
        assert pixels[5, 5].max() < 10, name
        assert pixels[5, 150].min() > 245, name


def test_frames_of_changing_size_are_recorded_in_the_size_of_the_first(zoo_bundle, tmp_path):
    environment, bundle = zoo_bundle("ChangingSize")
    assert recording.record(bundle, environment, 0, tmp_path / "episode.gif")
    with Image.open(tmp_path / "episode.gif") as image:
        assert (image.size, image.n_frames) == ((300, 225), 21)


def test_frames_of_any_proportions_are_recorded(zoo_bundle, tmp_path):
    environment, bundle = zoo_bundle("Wide")
    assert recording.record(bundle, environment, 0, tmp_path / "episode.gif")


def test_an_environment_that_fails_to_draw_has_no_recording_and_one_line_says_why(zoo_bundle, tmp_path):
    for name, reason in drawing.NOT_DRAWN.items():
        environment, bundle = zoo_bundle(name)
        result = recording.record(bundle, environment, 0, tmp_path / "episode.gif")
        assert not result.is_written, name
        assert reason in result.reason, name
        assert "\n" not in result.reason, name
        assert not (tmp_path / "episode.gif").exists()
