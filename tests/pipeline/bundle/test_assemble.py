"""An assembled bundle contains a graph that computes what the checkpoint computes; otherwise nothing is written."""

import json

import numpy as np
import pytest

from pipeline.bundle import assemble as bundle
from pipeline.bundle.errors import ExportDiffers
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.export.onnx_graph import to_onnx
from tests.workshop import PROJECT


def test_the_loaded_policy_acts_as_the_one_before_saving(assembled, cartpole):
    directory, module = assembled
    observations = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    before = ExportablePolicy(module, cartpole.observation_space, cartpole.action_space)
    expected = before.run({"observations": observations})["action"]
    np.testing.assert_array_equal(bundle.load(directory).act(observations), expected)


def test_policy_json_describes_the_environment_and_the_noise(assembled):
    directory, _ = assembled
    description = json.loads((directory / "policy.json").read_text())
    assert description["environment"] == {"id": "CartPole-v1", "kwargs": {}}
    assert description["noise"] == [{"distribution": "gumbel", "size": 2}]


def test_policy_json_has_the_keys_that_the_newest_golden_bundle_has(assembled):
    """A new key needs a golden bundle beside the others, so that every later release is tested with it."""
    golden = PROJECT / "tests/serving/policy/golden/format-1-episode-limit/policy.json"
    written = (assembled[0] / "policy.json").read_text()
    assert json.loads(written).keys() == json.loads(golden.read_text()).keys()


def test_nothing_is_written_when_graph_and_checkpoint_differ(
    save_checkpoint, build_module, cartpole, monkeypatch, tmp_path
):
    save_checkpoint(build_module(cartpole), tmp_path / "checkpoint")
    other = ExportablePolicy(build_module(cartpole), cartpole.observation_space, cartpole.action_space)
    next(iter(other.parameters())).data.mul_(2)
    graph = to_onnx(other)
    monkeypatch.setattr(bundle, "to_onnx", lambda _: graph)
    with pytest.raises(ExportDiffers, match="Nothing was registered"):
        bundle.assemble(tmp_path, cartpole)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
