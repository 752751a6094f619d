import json
from dataclasses import replace

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from gymnasium import spaces

from pipeline.cli import cli
from pipeline.experience.raw import read_raw
from pipeline.experiment.shadow import recorded
from pipeline.experiment.shadow.errors import ChallengerDiffers
from pipeline.experiment.shadow.shadow import prepare, shadow
from serving.experience.journal.records import DIGESTS, OMITTED
from serving.experience.store import open_store
from serving.policy.bundle import Bundle
from serving.policy.policy import Policy
from serving.policy.spaces import leaves
from serving.policy.tensors import ACTION, OBSERVATIONS, STATE_IN
from tests.pipeline.experience.recording import (
    MODEL,
    Decision,
    Feedback,
    decision_table,
    feedback_table,
    spec,
    write_segment,
)
from tests.serving.policies import (
    CARTPOLE_BUNDLE,
    CONTRARY_BUNDLE,
    COUNTING_BUNDLE,
    EXPLORING_BUNDLE,
    ROBOT_BUNDLE,
    STEERING_BUNDLE,
    Tensor,
    cartpole_graph,
    model,
    policy_json,
)
from tests.serving.store import Store

HALF = np.array([[0, 0.1], [0, 0.5], [0, 5], [0, -1]], np.float32)
HALF_BUNDLE = Bundle(cartpole_graph(weights=HALF).SerializeToString(), policy_json())
"""A policy that acts as CARTPOLE_BUNDLE does unless the pole's speed decides."""

FAILING_BUNDLE = Bundle(
    model(
        [
            "first = Slice(observations, zero, one, one)",
            "index = Cast <to = 7> (first)",
            "row = Squeeze(index, one)",
            "action = Gather(choices, row)",
        ],
        [Tensor("observations", (4,))],
        [Tensor("action", dtype=np.int64)],
        zero=np.array([0]),
        one=np.array([1]),
        choices=np.array([0, 1]),
    ),
    policy_json(),
)
"""A policy that fails where the first number of the observation is 2 or more."""

SWITCHING_BUNDLE = Bundle(
    model(
        [
            "positive = Greater(observations, zero)",
            "number = Cast <to = 7> (positive)",
            "action = Squeeze(number, one)",
        ],
        [Tensor("observations", (1,))],
        [Tensor("action", dtype=np.int64)],
        zero=np.float32(0),
        one=np.array([1]),
    ),
    policy_json(spaces.Box(-10, 10, (1,))),
)


def seen(rows=200, seed=0):
    return {"observations": np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)}


class Service:
    """Registers versions, and records what they would have answered."""

    def __init__(self, directory):
        self.registry = Store(mlflow.get_tracking_uri(), directory)
        self.store = open_store(str(directory / "experience"))
        self.segments = 0

    def register(self, *bundles):
        for bundle in bundles:
            self.registry.register(MODEL, bundle)

    def record(self, number, bundle, inputs, *, at=100.0, flags=0, explored=(), digests=None, row=None):
        """Record the decisions of a version, which are `row` observations of one request if that is given."""
        policy = Policy.load(bundle)
        outputs = policy.run(inputs, policy.interface.required_outputs)
        rows = len(next(iter(inputs.values())))
        space = policy.observation_space, policy.action_space
        sides = [
            [
                (leaf.tensor(root), np.dtype(leaf.space.dtype).str, tuple(leaf.space.shape or ()))
                for leaf in leaves(each)
            ]
            for each, root in zip(space, (OBSERVATIONS, ACTION), strict=True)
        ]
        sides[0] += [(STATE_IN + name, "<f4", shape) for name, shape in policy.interface.state_shapes.items()]
        seen = {name: np.zeros((rows, 16), np.uint8) for name in inputs} if flags & DIGESTS else inputs
        decisions = [
            Decision(
                None,
                None,
                at,
                {name: tensor[index] for name, tensor in seen.items()},
                {name: outputs[name][index] for name, *_ in sides[1]},
                explored=index in explored,
                row=index if row else 0,
            )
            for index in range(rows)
        ]
        self.segments += 1
        version = replace(spec(number, *sides), digests=bundle.digests if digests is None else digests)
        write_segment(self.store, [decision_table(version, decisions, flags=flags)], segment=self.segments)

    def shadow(self, number, decisions=10_000):
        challenger, selection = prepare(self.store, MODEL, number, decisions)
        return shadow(self.store, challenger, selection, 1000.0)

    def command(self, number, *options):
        options = ("--experience", self.store.uri, *options)
        result = CliRunner().invoke(cli, ["experiment", "shadow", str(number), *options])
        lines = [" ".join(line.split()) for line in result.output.splitlines()]
        return result.exit_code, [line for line in lines if line and not line.startswith("[")]


@pytest.fixture
def service(mlflow_store, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    return Service(mlflow_store)


def test_the_same_policy_agrees_and_has_the_same_distributions(service):
    service.register(CARTPOLE_BUNDLE, CARTPOLE_BUNDLE)
    service.record(1, CARTPOLE_BUNDLE, seen())
    found = service.shadow(2)
    assert found.total.to_json() == {
        "decisions": 200,
        "compared": 200,
        "agreement": 1.0,
        "action_distance_mean": None,
        "action_distance_p99": None,
        "total_variation_mean": 0.0,
        "total_variation_p99": 0.0,
        "non_finite": 0,
        "failed": 0,
    }
    assert found.is_exact
    assert found.is_finite
    assert found.is_fast
    assert not found.notes


def test_each_version_that_is_served_now_has_figures_of_its_own(service):
    service.register(CARTPOLE_BUNDLE, CONTRARY_BUNDLE, HALF_BUNDLE, CARTPOLE_BUNDLE)
    service.record(3, HALF_BUNDLE, seen(), at=recorded.SERVED_NOW_S + 200)
    service.record(1, CARTPOLE_BUNDLE, seen(100), at=100)
    service.record(2, CONTRARY_BUNDLE, seen(50), at=90)
    service.record(4, CARTPOLE_BUNDLE, seen(70), at=80)
    found = service.shadow(4)
    assert {number: (each.decisions, each.agreement) for number, each in found.versions.items()} == {
        1: (100, 1.0),
        2: (50, 0.0),
    }
    assert found.total.agreement == pytest.approx(100 / 150)
    assert found.versions[2].variation.mean > 0.3


def test_reports_that_arrive_long_after_the_last_decision_do_not_hide_the_version_that_made_it(service):
    service.register(CARTPOLE_BUNDLE, CARTPOLE_BUNDLE)
    service.record(1, CARTPOLE_BUNDLE, seen(), at=2000.0)
    write_segment(service.store, feedback=feedback_table([Feedback("late", 100.0, {0: 1.0})]), segment=2)
    assert set(service.shadow(2).versions) == {1}


def test_agreement_and_total_variation_are_those_of_the_two_policies(service):
    service.register(CARTPOLE_BUNDLE, HALF_BUNDLE)
    inputs = seen(500)
    service.record(1, CARTPOLE_BUNDLE, inputs)
    found = service.shadow(2).versions[1]
    champion, challenger = (Policy.load(each) for each in (CARTPOLE_BUNDLE, HALF_BUNDLE))
    outputs = [each.run(inputs, ("action", "action_dist_inputs")) for each in (champion, challenger)]
    actions = [each["action"] for each in outputs]
    assert 0 < found.agreement == np.mean(actions[0] == actions[1]) < 1
    chances = [np.exp(each["action_dist_inputs"]) for each in outputs]
    chances = [each / each.sum(axis=1, keepdims=True) for each in chances]
    assert found.variation.mean == pytest.approx(np.abs(chances[0] - chances[1]).sum(axis=1).mean() / 2, rel=1e-5)


def test_only_the_newest_decisions_are_computed(service):
    service.register(CARTPOLE_BUNDLE, CARTPOLE_BUNDLE)
    for at, bundle in ((300, CONTRARY_BUNDLE), (200, CARTPOLE_BUNDLE), (100, CARTPOLE_BUNDLE)):
        service.record(1, bundle, seen(100), at=at)
    assert service.shadow(2, decisions=150).total.decisions == 150
    selection = recorded.select(read_raw(service.store, MODEL), 2, 150)
    assert [rows for _, rows in selection.files] == [100, 50]
    assert [int(file.path.split("-")[-2]) for file, _ in selection.files] == [3, 2]


def test_large_tables_are_computed_in_batches(service, monkeypatch):
    monkeypatch.setattr(recorded, "BATCH_ROWS", 64)
    service.register(CARTPOLE_BUNDLE, HALF_BUNDLE)
    service.record(1, CARTPOLE_BUNDLE, seen(500))
    at_once = service.shadow(2).total.to_json()
    monkeypatch.setattr(recorded, "BATCH_BYTES", 160)
    assert service.shadow(2).total.to_json() == pytest.approx(at_once)


def test_a_sampled_action_is_compared_by_what_its_version_would_have_done_greedily(service):
    service.register(EXPLORING_BUNDLE, EXPLORING_BUNDLE)
    service.record(1, CONTRARY_BUNDLE, seen(), digests=EXPLORING_BUNDLE.digests, explored=range(0, 200, 2))
    assert service.shadow(2).total.agreement == 0.5  # what was served greedily is what counts there


def test_a_version_whose_bundle_is_gone_is_compared_by_what_is_recorded(service):
    service.register(CARTPOLE_BUNDLE, HALF_BUNDLE)
    service.record(1, CARTPOLE_BUNDLE, seen(), explored=range(50), digests={"model.onnx": "00", "policy.json": "00"})
    found = service.shadow(2)
    assert (found.total.decisions, found.total.compared, found.total.variation.count) == (200, 150, 200)
    assert found.latencies[0].champion is None
    (note,) = found.notes
    assert note.startswith("Version 1 cannot be computed, so its recorded actions are compared, and its latency is ")
    assert note.endswith("unknown: the registry has another bundle under its number.")


def test_numbers_that_are_not_finite_are_counted_and_the_status_is_3(service):
    service.register(STEERING_BUNDLE, STEERING_BUNDLE)
    inputs = {"observations": np.linspace(-6, 6, 100, dtype=np.float32)[:, None]}
    service.record(1, STEERING_BUNDLE, inputs)
    assert service.command(2)[0] == 0
    inputs["observations"][[3, 40]] = 7
    service.record(1, STEERING_BUNDLE, inputs, at=50)
    status, lines = service.command(2)
    assert status == 3
    assert "Version 2 failed on 0 decisions, and computed NaN or infinities for 2 of 200. Do not promote it." in lines


def test_observations_that_the_graph_cannot_compute_are_counted(service):
    service.register(CARTPOLE_BUNDLE, FAILING_BUNDLE)
    inputs = seen(20)
    inputs["observations"][:, 0] = 0.5
    inputs["observations"][[3, 4], 0] = 5
    service.record(1, CARTPOLE_BUNDLE, inputs)
    found = service.shadow(2)
    assert found.total.failed == 2
    assert found.total.compared == 18
    assert not found.is_finite


def test_nested_observations_and_actions_are_compared_leaf_by_leaf(service):
    service.register(ROBOT_BUNDLE, ROBOT_BUNDLE)
    policy = Policy.load(ROBOT_BUNDLE)
    policy.observation_space.seed(0)
    from pipeline.environments.nested_spaces import stack

    values = [policy.observation_space.sample() for _ in range(30)]
    service.record(1, ROBOT_BUNDLE, stack(policy.observation_space, values, OBSERVATIONS))
    found = service.shadow(2)
    assert found.total.agreement == 1
    assert found.total.distance.mean == 0
    assert found.has_numbers
    assert not found.is_exact


def test_a_recurrent_challenger_gets_the_recorded_states(service):
    service.register(COUNTING_BUNDLE, COUNTING_BUNDLE)
    generator = np.random.default_rng(0)
    inputs = {
        "observations": generator.normal(size=(60, 1)).astype(np.float32),
        "state_in.sum": generator.normal(size=(60, 1)).astype(np.float32),
        "state_in.steps": generator.normal(size=(60, 2, 3)).astype(np.float32),
    }
    service.record(1, COUNTING_BUNDLE, inputs)
    found = service.shadow(2)
    assert found.total.agreement == 1
    assert found.notes[0].startswith("The challenger is recurrent and was given the states of the version that was")
    initial = inputs | {name: np.zeros_like(inputs[name]) for name in inputs if name.startswith(STATE_IN)}
    actions = [Policy.load(COUNTING_BUNDLE).run(each, ("action",))["action"] for each in (inputs, initial)]
    assert not np.array_equal(*actions)


def test_a_recurrent_challenger_with_other_states_begins_anew_for_each_decision(service):
    service.register(SWITCHING_BUNDLE, COUNTING_BUNDLE)
    inputs = {"observations": np.random.default_rng(0).normal(size=(60, 1)).astype(np.float32)}
    service.record(1, SWITCHING_BUNDLE, inputs)
    found = service.shadow(2)
    assert found.total.agreement == 1  # the sum of one observation is positive where the observation is
    assert found.notes[0].startswith("The challenger is recurrent and has other states than the recorded ones, so each")


@pytest.mark.parametrize(
    ("served", "challenger", "inputs", "difference"),
    [
        (
            CARTPOLE_BUNDLE,
            STEERING_BUNDLE,
            seen(5),
            "its observations are observations (1,) float32, and theirs observations (4,) float32",
        ),
        (
            STEERING_BUNDLE,
            SWITCHING_BUNDLE,
            {"observations": np.zeros((5, 1), np.float32)},
            "its actions are action () int64, and theirs action (1,) float32",
        ),
    ],
)
def test_a_challenger_of_other_spaces_is_refused(service, served, challenger, inputs, difference):
    service.register(served, challenger)
    service.record(1, served, inputs)
    with pytest.raises(ChallengerDiffers) as raised:
        service.shadow(2)
    assert str(raised.value).startswith(f"Version 2 cannot compute the decisions of version 1: {difference}.")


def test_the_latency_is_measured_at_the_sizes_of_requests_for_both_policies(service):
    service.register(CARTPOLE_BUNDLE, HALF_BUNDLE)
    service.record(1, CARTPOLE_BUNDLE, seen(40), row=40)
    found = service.shadow(2).latencies
    assert [each.batch for each in found] == [1, 16, 40]
    for each in found:
        for median, slow in (each.challenger, each.champion):
            assert 0 < median <= slow


def test_a_slow_challenger_has_status_3(service):
    service.register(CARTPOLE_BUNDLE, HALF_BUNDLE)
    service.record(1, CARTPOLE_BUNDLE, seen(10))
    status, lines = service.command(2, "--max-latency-ms", "0.000001")
    assert status == 3
    assert "Version 2 is slower than the limit of 1e-06 ms." in lines


def test_the_result_is_shown_and_logged_at_the_version(service):
    service.register(CARTPOLE_BUNDLE, HALF_BUNDLE)
    service.record(1, CARTPOLE_BUNDLE, seen(100))
    status, lines = service.command(2, "--decisions", "80")
    assert status == 0
    assert lines[0] == "served decisions agree TV p99 not finite failed"
    assert lines[1].startswith("1 80 ")
    assert lines[2] == "batch ms p50 p99 served p50 p99 us per observation"
    (run,) = mlflow.MlflowClient().search_runs(["0"])
    assert lines[-2] == f"Logged in run {run.info.run_id}: in MLflow 'shadow {MODEL} 2'."
    assert lines[-1] == "This says nothing about the return: whether another action is better is not recorded."
    assert (run.info.run_name, run.info.status) == (f"shadow {MODEL} 2", "FINISHED")
    assert run.data.params["decisions"] == "80"
    assert run.data.metrics["shadow/decisions"] == 80
    content = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/shadow.json"))
    assert content["versions"]["1"]["agreement"] == run.data.metrics["shadow/agreement"]
    figures = mlflow.MlflowClient().list_artifacts(run.info.run_id, "figures")
    assert [each.path for each in figures] == ["figures/shadow.png"]


@pytest.mark.parametrize("flags", [DIGESTS, OMITTED])
def test_decisions_without_observations_are_refused_or_left_out(service, flags):
    service.register(CARTPOLE_BUNDLE, HALF_BUNDLE)
    service.record(1, CARTPOLE_BUNDLE, seen(10), flags=flags)
    status, lines = service.command(2)
    assert status == 1
    assert "have no observations, so no version can compute them again." in lines[-1]
    service.record(1, CARTPOLE_BUNDLE, seen(10))
    found = service.shadow(2)
    assert found.total.decisions == 10
    assert found.notes == ("10 decisions were recorded without observations, and left out.",)


def test_there_has_to_be_another_version_and_the_challenger(service):
    service.register(CARTPOLE_BUNDLE)
    service.record(1, CARTPOLE_BUNDLE, seen(10))
    assert "No decisions of 'cartpole-ppo' by another version than 1 are recorded at " in service.command(1)[1][-1]
    assert "No version of 'cartpole-ppo' has the number 9." in service.command(9)[1][-1]


def test_a_damaged_file_is_named_with_what_to_do(service):
    service.register(CARTPOLE_BUNDLE, HALF_BUNDLE)
    service.record(1, CARTPOLE_BUNDLE, seen(10))
    (file,) = service.store.files("decisions", ".parquet")
    service.store.write(file, b"no table")
    status, lines = service.command(2)
    assert status == 1
    assert f"Error: {file} is damaged: it is gone, or does not have the sha256 of its manifest" in lines[-1]
    assert lines[-1].endswith("To do without it, delete the manifest of its segment (in manifests/).")
    (manifest,) = service.store.files("manifests", ".json")
    service.store.delete(manifest)
    service.record(1, CARTPOLE_BUNDLE, seen(10))
    assert service.shadow(2).total.decisions == 10
