"""A version is promoted if it passes the gate or by force; its stage then holds no other version."""

import dataclasses

import gymnasium
import mlflow
import numpy as np
import onnx
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from pipeline import tables
from pipeline.commands.output import print_promotion
from pipeline.registry import promotion
from pipeline.registry.errors import NothingToRollBack, PromotionRefused
from pipeline.registry.gate import Gate
from pipeline.registry.target import Target
from serving.policy.bundle import Bundle
from serving.registry.errors import DigestMismatch, ModelUnknown, VersionMissing
from tests.serving.policies import CARTPOLE, CARTPOLE_BUNDLE, STEERING_BUNDLE, cartpole_graph, policy_json
from tests.serving.store import Store

NAME = "cartpole-ppo"
PRODUCTION = Target(NAME, "Production")
GATE = Gate(episodes=5)


def bundle_that_falls():
    """Return a bundle that pushes the cart away from where the pole falls, which returns about 9."""
    graph = cartpole_graph()
    weights = onnx.numpy_helper.to_array(graph.graph.initializer[0])
    graph.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(-weights), "weights"))
    return Bundle(graph.SerializeToString(), policy_json())


@pytest.fixture
def registry(store, monkeypatch):
    """Versions 1 to 4: two good ones, a bad one, and one with other spaces."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(store / "cache"))
    registry = Store(mlflow.get_tracking_uri(), store)
    for bundle in (CARTPOLE_BUNDLE, CARTPOLE_BUNDLE, bundle_that_falls(), STEERING_BUNDLE):
        registry.register(NAME, bundle)
    return registry


def stages():
    return {row.version: row.stage for row in promotion.versions(NAME) if row.stage != "None"}


@pytest.mark.usefixtures("registry")
def test_a_promotion_archives_the_version_that_was_in_the_stage():
    assert promotion.promote(PRODUCTION, 1, GATE).replaced is None
    assert promotion.promote(PRODUCTION, 2, GATE).replaced == 1
    assert stages() == {2: "Production", 1: "Archived"}


@pytest.mark.usefixtures("registry")
def test_a_worse_challenger_is_refused_and_the_registry_is_unchanged():
    promotion.promote(PRODUCTION, 1, GATE)
    with pytest.raises(PromotionRefused) as caught:
        promotion.promote(PRODUCTION, 3, GATE)
    message = str(caught.value)
    assert message.startswith("Version 3 was not promoted to stage 'Production': its mean return ")
    assert "is below the threshold 475; it may be worse than the champion" in message
    assert message.endswith("Use --force to promote it anyway.")
    assert stages() == {1: "Production"}
    (run,) = mlflow.search_runs(["0"], "attributes.run_name = 'promote cartpole-ppo 3'", output_format="list")
    assert run.info.status == "FAILED"
    assert run.data.metrics["challenger/return_mean"] < 100 < run.data.metrics["champion/return_mean"]
    assert "below the threshold" in run.data.tags["objections"]


@pytest.mark.usefixtures("registry")
def test_force_promotes_and_the_history_records_the_objections():
    promotion.promote(PRODUCTION, 1, GATE)
    forced = promotion.promote(PRODUCTION, 3, dataclasses.replace(GATE, force=True))
    assert stages() == {3: "Production", 1: "Archived"}
    assert len(forced.overridden) == 2
    last = promotion.timeline(PRODUCTION)[-1]
    assert (last.version, last.kind) == (3, "forced")
    assert "below the threshold" in last.why


@pytest.mark.usefixtures("registry")
def test_a_challenger_with_other_spaces_is_refused():
    promotion.promote(PRODUCTION, 1, GATE)
    with pytest.raises(PromotionRefused) as caught:
        promotion.promote(PRODUCTION, 4, GATE)
    assert caught.value.objections == [
        f"its observation space is Box(-10.0, 10.0, (1,), float32), the champion's is {CARTPOLE}",
        "its action space is Box(-2.0, 2.0, (1,), float32), the champion's is Discrete(2)",
    ]


def test_a_champion_that_cannot_be_loaded_requires_force(registry):
    promotion.promote(PRODUCTION, 1, GATE)
    registry.file(NAME, 1, "model.onnx").write_bytes(b"other bytes")
    for cached in (registry.directory / "cache").rglob("model.onnx"):
        cached.unlink()
    with pytest.raises(PromotionRefused, match="the champion, version 1, cannot be loaded for the comparison"):
        promotion.promote(PRODUCTION, 2, GATE)
    promotion.promote(PRODUCTION, 2, dataclasses.replace(GATE, force=True))
    assert stages()[2] == "Production"


def test_force_does_not_promote_a_challenger_that_cannot_be_loaded(registry):
    registry.file(NAME, 1, "model.onnx").write_bytes(b"other bytes")
    with pytest.raises(DigestMismatch, match=r"model\.onnx of version 1"):
        promotion.promote(PRODUCTION, 1, dataclasses.replace(GATE, force=True))
    assert stages() == {}


@pytest.mark.usefixtures("registry")
def test_the_threshold_defaults_to_the_target_return_of_the_training():
    mlflow.MlflowClient().set_model_version_tag(NAME, "3", "target_return", "5")
    promotion.promote(PRODUCTION, 3, GATE)
    assert stages() == {3: "Production"}


@pytest.mark.usefixtures("registry")
def test_tags_that_are_no_numbers_are_ignored():
    for tag in ("target_return", "evaluation.return_mean"):
        mlflow.MlflowClient().set_model_version_tag(NAME, "1", tag, "475 points")
    assert promotion.versions(NAME)[-1].return_mean is None
    promotion.promote(PRODUCTION, 1, GATE)  # against the threshold of the environment
    assert stages() == {1: "Production"}


@pytest.mark.usefixtures("registry")
def test_a_given_threshold_overrides_the_tag_and_the_environment():
    mlflow.MlflowClient().set_model_version_tag(NAME, "3", "target_return", "5")
    with pytest.raises(PromotionRefused, match="is below the threshold 100"):
        promotion.promote(PRODUCTION, 3, dataclasses.replace(GATE, threshold=100))
    promotion.promote(PRODUCTION, 3, dataclasses.replace(GATE, threshold=6))
    assert stages() == {3: "Production"}


@pytest.mark.usefixtures("registry")
def test_a_challenger_whose_environment_cannot_be_made_is_refused(monkeypatch):
    def fail(**_):
        raise RuntimeError("no display")

    monkeypatch.setattr(gymnasium.registry["CartPole-v1"], "entry_point", fail)
    with pytest.raises(PromotionRefused, match=r"it cannot be evaluated here: .*no display"):
        promotion.promote(PRODUCTION, 1, GATE)
    assert stages() == {}


@pytest.mark.usefixtures("registry")
def test_challenger_and_champion_play_the_same_seeds(monkeypatch):
    seeds = []

    class SeedRecorder(CartPoleEnv):
        def reset(self, *, seed=None, options=None):
            if seed is not None:
                seeds.append(seed)
            return super().reset(seed=seed, options=options)

    monkeypatch.setattr(gymnasium.registry["CartPole-v1"], "entry_point", SeedRecorder)
    promotion.promote(PRODUCTION, 1, GATE)
    seeds.clear()
    promotion.promote(PRODUCTION, 2, dataclasses.replace(GATE, seed=7))
    played = [seed for seed in seeds if seed]  # the comparison with the vectorized form plays seed 0
    assert played == [7, 8, 9, 10, 11] * 2


@pytest.mark.usefixtures("registry")
def test_staging_has_no_gate_and_a_version_that_moves_there_leaves_production():
    promotion.promote(Target(NAME, "Staging"), 3, GATE)
    promotion.promote(PRODUCTION, 1, GATE)
    promotion.promote(Target(NAME, "Staging"), 1, GATE)
    assert stages() == {1: "Staging", 3: "Archived"}
    last = promotion.timeline(PRODUCTION)[-1]
    assert (last.version, last.kind, last.why) == (None, "promotion", "version 1 moved to stage 'Staging'")


@pytest.mark.usefixtures("registry")
def test_archived_holds_any_number_of_versions_and_none_takes_the_place_of_another(capsys):
    promotion.promote(PRODUCTION, 1, GATE)
    archived = Target(NAME, "Archived")
    promotion.promote(archived, 2, GATE)
    print_promotion(promotion.promote(archived, 1, GATE))
    assert capsys.readouterr().out.startswith("The stage 'Archived' of 'cartpole-ppo' now has version 1.\n")
    print_promotion(promotion.promote(archived, 1, GATE))
    assert capsys.readouterr().out == "The stage 'Archived' of 'cartpole-ppo' already has version 1.\n"
    assert stages() == {1: "Archived", 2: "Archived"}
    assert promotion.timeline(PRODUCTION)[-1].why == "version 1 moved to stage 'Archived'"


@pytest.mark.usefixtures("registry")
def test_listing_versions_and_history_writes_nothing():
    promotion.promote(PRODUCTION, 1, GATE)
    client = mlflow.MlflowClient()
    Target(NAME, "Production").assign(2)
    client.set_registered_model_alias(NAME, "champion", "2")
    before = client.get_registered_model(NAME).tags
    assert [event.version for event in promotion.timeline(PRODUCTION)] == [1, 2]
    assert len(promotion.versions(NAME)) == 4
    assert client.get_registered_model(NAME).tags == before


def test_an_alias_takes_the_place_of_the_stage():
    assert Target.of(NAME, "Production", None) == Target(NAME, "Production")
    assert Target.of(NAME, "Production", "champion") == Target(NAME, "champion", is_alias=True)


@pytest.mark.usefixtures("registry")
def test_an_alias_works_like_a_stage():
    champion = Target(NAME, "champion", is_alias=True)
    promotion.promote(champion, 1, GATE)
    with pytest.raises(PromotionRefused, match="Version 3 was not promoted to alias 'champion'"):
        promotion.promote(champion, 3, GATE)
    promotion.promote(champion, 2, GATE)
    assert promotion.rollback(champion).version == 1
    assert champion.current_version() == 1


@pytest.mark.usefixtures("registry")
def test_two_rollbacks_restore_the_version_before_the_previous_one():
    force = dataclasses.replace(GATE, force=True)
    for version in (1, 2, 3):
        promotion.promote(PRODUCTION, version, force)
    assert promotion.rollback(PRODUCTION).version == 2
    assert promotion.rollback(PRODUCTION).version == 1
    assert stages() == {1: "Production", 2: "Archived", 3: "Archived"}
    with pytest.raises(NothingToRollBack) as caught:
        promotion.rollback(PRODUCTION)
    assert str(caught.value) == (
        "Cannot roll back stage 'Production' of 'cartpole-ppo': it refers to version 1 now, "
        "and no version that it referred to before still exists."
    )


@pytest.mark.usefixtures("registry")
def test_promoting_the_current_version_changes_nothing():
    promotion.promote(PRODUCTION, 1, GATE)
    again = promotion.promote(PRODUCTION, 1, GATE)
    assert (again.replaced, again.version) == (1, 1)
    assert len(promotion.timeline(PRODUCTION)) == 1


@pytest.mark.usefixtures("registry")
def test_promoting_a_missing_version_changes_nothing():
    with pytest.raises(VersionMissing) as caught:
        promotion.promote(PRODUCTION, 9, GATE)
    assert str(caught.value).startswith("No version of 'cartpole-ppo' has the number 9.")
    assert stages() == {}


@pytest.mark.usefixtures("store")
def test_the_error_names_an_unknown_model():
    with pytest.raises(ModelUnknown, match="No model 'nothing' is registered"):
        promotion.versions("nothing")


@pytest.mark.usefixtures("registry")
def test_the_table_shows_version_stage_aliases_return_and_age(capsys):
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", "2")
    promotion.promote(PRODUCTION, 1, GATE)
    tables.versions_table(promotion.versions(NAME))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["version", "stage", "aliases", "return", "age"]
    assert [line[:4] for line in lines[1:]] == [
        ["4", "-", "-", "500.0"],
        ["3", "-", "-", "500.0"],
        ["2", "-", "champion", "500.0"],
        ["1", "Production", "-", "500.0"],
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 seconds"), (1, "1 second"), (3599, "59 minutes"), (90000, "1 day"), (1e6, "11 days")]
)
def test_ages_are_shown_in_their_largest_unit(seconds, text):
    assert tables.age(seconds) == text


@pytest.mark.usefixtures("registry")
def test_the_default_gate_refuses_a_loss_of_a_tenth_and_a_given_tolerance_decides_instead(monkeypatch):
    weights = onnx.numpy_helper.to_array(cartpole_graph().graph.initializer[0])

    class Preferring(CartPoleEnv):
        """An episode of ten steps, each worth 1 for the champion's action and 0.9 for the other one."""

        def reset(self, *, seed=None, options=None):
            self.steps = 0
            return super().reset(seed=seed, options=options)

        def step(self, action):
            preferred = np.argmax(np.asarray(self.state, np.float32) @ weights)
            observation, *_ = super().step(action)
            self.steps, self.steps_beyond_terminated = self.steps + 1, None
            return observation, 1.0 if action == preferred else 0.9, self.steps == 10, False, {}

    monkeypatch.setattr(gymnasium.registry["CartPole-v1"], "entry_point", Preferring)
    gate = dataclasses.replace(GATE, threshold=0.0)
    assert promotion.promote(PRODUCTION, 1, gate).verdict.challenger.returns == (10.0,) * 5
    with pytest.raises(PromotionRefused, match=r"difference is -1\.0, below -0\.2 \(2% of the champion's mean\)"):
        promotion.promote(PRODUCTION, 3, gate)
    assert promotion.promote(PRODUCTION, 3, dataclasses.replace(gate, tolerance=0.2)).replaced == 1
