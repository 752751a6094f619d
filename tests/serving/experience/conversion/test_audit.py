import logging

import numpy as np
import pytest
from gymnasium import spaces

from serving.experience.conversion.audit import Auditor
from serving.experience.conversion.decisions import Chunk, DecisionReader
from serving.experience.episodes import Episodes
from serving.experience.journal.records import DIGESTS, EXPLORED, OMITTED
from serving.experience.journal.segment import Segment
from serving.experience.tables import OUTPUT
from serving.policy.bundle import Bundle
from serving.policy.tensors import NOISE
from tests.serving.experience.conversion.journals import (
    HASHER,
    Actor,
    episodes,
    put_into_cache,
    version_record,
    write_segment,
)
from tests.serving.policies import (
    COUNTING_BUNDLE,
    EXPLORING_BUNDLE,
    ROBOT_BUNDLE,
    STEERING_BUNDLE,
    Tensor,
    model,
    policy_json,
)

GAUSSIAN_BUNDLE = Bundle(
    model(
        [
            "action_dist_inputs = Concat <axis = 1> (observations, observations)",
            "mean, log_std = Split <axis = 1, num_outputs = 2> (action_dist_inputs)",
            "deviation = Exp(log_std)",
            "scaled = Mul(deviation, noise)",
            "action = Add(mean, scaled)",
        ],
        [Tensor("observations", (2,)), Tensor("noise", (2,))],
        [Tensor("action", (2,)), Tensor("action_dist_inputs", (4,))],
    ),
    policy_json(
        spaces.Box(-10, 10, (2,)), spaces.Box(-np.inf, np.inf, (2,)), noise=[{"distribution": "normal", "size": 2}]
    ),
)
"""A Gaussian whose mean, and the logarithm of its deviation, are the observation."""

BUNDLES = {
    "discrete": EXPLORING_BUNDLE,
    "continuous": STEERING_BUNDLE,
    "recurrent": COUNTING_BUNDLE,
    "nested": ROBOT_BUNDLE,
}


@pytest.fixture(params=BUNDLES.values(), ids=BUNDLES)
def actor(request, tmp_path) -> Actor:
    actor = Actor(request.param)
    put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
    return actor


def audited(tmp_path, actor: Actor, *records: bytes):
    """The chunk of the records, and its audit."""
    path = write_segment(tmp_path / "journal", 1, [version_record(actor.spec), *records])
    (chunk,) = DecisionReader(Segment.read(path).records)
    return chunk, Auditor(tmp_path / "cache").audit(chunk)


def greedy(actor: Actor, rows: int = 8) -> tuple[dict, dict]:
    inputs = actor.inputs(rows, np.random.default_rng(3))
    return inputs, actor.act(inputs)


def test_greedy_decisions_are_computed_again(tmp_path, actor):
    inputs, outputs = greedy(actor)
    _, audit = audited(tmp_path, actor, actor.record(inputs, outputs, episodes(8)))
    assert audit.counts == {"ok": 8, "differs": 0, "unchecked": 0}


def test_a_planted_action_differs(tmp_path, actor):
    inputs, outputs = greedy(actor)
    name = actor.spec.outputs[-1].name
    wrong = {each: values.copy() for each, values in outputs.items()}
    wrong[name][5] = 1 - wrong[name][5] if name == "action" else wrong[name][5] + 1
    _, audit = audited(tmp_path, actor, actor.record(inputs, wrong, episodes(8)))
    assert audit.outcomes.tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    assert audit.logp is None or np.flatnonzero(np.isnan(audit.logp)).tolist() == [5]


@pytest.mark.parametrize("seeded", ["batch", "rows"])
@pytest.mark.parametrize(
    "bundle",
    [EXPLORING_BUNDLE, GAUSSIAN_BUNDLE, COUNTING_BUNDLE],
    ids=["discrete", "continuous", "recurrent"],
)
def test_sampled_decisions_are_computed_again_with_their_noise(tmp_path, bundle, seeded):
    actor = Actor(bundle)
    put_into_cache(tmp_path / "cache", actor.name, actor.number, bundle)
    inputs, at_best = greedy(actor, 40)
    seed, seeds = (11, ()) if seeded == "batch" else (None, tuple(range(2**64 - 40, 2**64)))
    outputs = actor.act(inputs, seed, seeds)
    assert (outputs["action"] != at_best["action"]).any()
    records = [
        actor.record(inputs, outputs, episodes(40), seed=seed, row_seeds=seeds),
        actor.record(inputs, at_best, episodes(40, first=40)),
    ]
    _, audit = audited(tmp_path, actor, *records)
    assert audit.counts == {"ok": 80, "differs": 0, "unchecked": 0}


def test_a_sample_of_other_noise_differs(tmp_path):
    actor = Actor(EXPLORING_BUNDLE)
    put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
    inputs, _ = greedy(actor, 40)
    outputs = actor.act(inputs, 11)
    _, audit = audited(tmp_path, actor, actor.record(inputs, outputs, episodes(40), seed=12))
    assert audit.counts["differs"] == int((outputs["action"] != actor.act(inputs, 12)["action"]).sum()) > 0


def test_the_log_probability_and_the_inputs_of_the_distribution_are_those_of_the_graph(tmp_path):
    actor = Actor(EXPLORING_BUNDLE)
    put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
    inputs, _ = greedy(actor, 5)
    noise = actor.policy.interface.noise.draw(5, 11)
    names = ("action", "action_logp", "action_dist_inputs")
    expected = actor.policy.run(inputs | {NOISE: noise}, names)
    _, audit = audited(tmp_path, actor, actor.record(inputs, expected, episodes(5), seed=11))
    assert audit.logp == pytest.approx(expected["action_logp"], abs=1e-6)
    assert audit.inputs == pytest.approx(expected["action_dist_inputs"], abs=1e-6)


def test_a_sample_without_the_seed_of_its_noise_is_unchecked(tmp_path):
    actor = Actor(EXPLORING_BUNDLE)
    put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
    inputs, outputs = greedy(actor)
    _, audit = audited(tmp_path, actor, actor.record(inputs, outputs, episodes(8), flags=EXPLORED))
    assert audit.counts["unchecked"] == 8
    assert np.isnan(audit.logp).all()


@pytest.mark.parametrize("flags", [DIGESTS, OMITTED], ids=["hashes", "omitted"])
def test_decisions_whose_observations_were_not_recorded_are_unchecked(tmp_path, flags):
    actor = Actor(EXPLORING_BUNDLE)
    put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
    inputs = {"observations": np.zeros((1, 16), np.uint8)} if flags == DIGESTS else {}
    _, audit = audited(tmp_path, actor, actor.record(inputs, {"action": np.array([1])}, episodes(1), flags=flags))
    assert audit.counts == {"ok": 0, "differs": 0, "unchecked": 1}
    assert audit.inputs is None


@pytest.mark.parametrize("fault", ["gone", "changed", "no graph"])
def test_decisions_whose_bundle_is_gone_or_changed_are_unchecked_with_one_warning(tmp_path, caplog, fault):
    actor = Actor(EXPLORING_BUNDLE)
    if fault != "gone":
        path = put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
        if fault == "changed":
            (path / "policy.json").write_bytes(actor.bundle.policy + b" ")
        else:
            (path / "model.onnx").unlink()
    inputs, outputs = greedy(actor)
    path = write_segment(
        tmp_path / "j",
        1,
        [version_record(actor.spec), actor.record(inputs, outputs, Episodes([HASHER("e")] * 8, [0] * 8))],
    )
    (chunk,) = DecisionReader(Segment.read(path).records)
    auditor = Auditor(tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        assert auditor.audit(chunk).counts["unchecked"] == auditor.audit(chunk).counts["unchecked"] == 8
    (record,) = caplog.records
    assert record.getMessage().startswith("decisions of version 3 of 'cartpole-ppo' stay unchecked: ")


def test_a_graph_that_fails_leaves_its_decisions_unchecked(tmp_path, caplog):
    actor = Actor(EXPLORING_BUNDLE)
    put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
    inputs, outputs = greedy(actor)
    chunk, _ = audited(tmp_path, actor, actor.record(inputs, outputs, episodes(8)))
    renamed = {name.replace("observations", "other"): values for name, values in chunk.columns.items()}
    assert Auditor(tmp_path / "cache").audit(Chunk(chunk.table, renamed)).counts["unchecked"] == 8
    assert "stay unchecked" in caplog.text


def test_actions_of_other_names_than_those_of_the_graph_are_unchecked(tmp_path):
    actor = Actor(EXPLORING_BUNDLE)
    put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
    inputs, outputs = greedy(actor)
    chunk, _ = audited(tmp_path, actor, actor.record(inputs, outputs, episodes(8)))
    renamed = {name.replace(OUTPUT, f"{OUTPUT}other."): values for name, values in chunk.columns.items()}
    assert Auditor(tmp_path / "cache").audit(Chunk(chunk.table, renamed)).counts["unchecked"] == 8


def test_only_the_last_policies_stay_loaded(tmp_path):
    actors = [Actor(EXPLORING_BUNDLE, number=number) for number in range(1, 7)]
    auditor = Auditor(tmp_path / "cache")
    for actor in actors:
        put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
        inputs, outputs = greedy(actor)
        path = write_segment(
            tmp_path / "j", actor.number, [version_record(actor.spec), actor.record(inputs, outputs, episodes(8))]
        )
        (chunk,) = DecisionReader(Segment.read(path).records)
        assert auditor.audit(chunk).counts["ok"] == 8
    assert len(auditor._policies) == 4
