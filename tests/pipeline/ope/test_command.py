"""The command `ope` and `promote --ope`, with registered policies and recorded episodes."""

from dataclasses import replace

import mlflow
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.experience.compaction.run import CompactOptions, compact
from pipeline.experience.progress import StageProgress
from pipeline.ope.errors import DistributionUnknown, RecurrentTarget
from pipeline.ope.target import Target
from pipeline.registry import promotion
from pipeline.registry.errors import PromotionRefused
from pipeline.registry.gate import Gate
from pipeline.registry.target import Target as Stage
from serving.experience.journal.records import DIGESTS
from serving.experience.store import open_store
from serving.policy.policy import Policy
from tests.pipeline.experience.recording import MODEL, NOW_NS
from tests.pipeline.ope.recorded import policy, record
from tests.serving.policies import COUNTING_BUNDLE, STEERING_BUNDLE
from tests.serving.store import Store

BEHAVIOUR, RIGHT, WRONG, RECURRENT, OTHER_SPACES = range(1, 6)
_WEIGHT = 0.4


@pytest.fixture
def registry(mlflow_store, monkeypatch):
    """Version 1 prefers the right action a little, 2 takes it, 3 takes the wrong one; 4 and 5 cannot be compared."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(mlflow_store / "cache"))
    registry = Store(mlflow.get_tracking_uri(), mlflow_store)
    for bundle in (policy(_WEIGHT), policy(9), policy(-9), COUNTING_BUNDLE, STEERING_BUNDLE):
        registry.register(MODEL, bundle)
    return registry


@pytest.fixture
def recorded(registry, mlflow_store):
    """Return a function that records and compacts episodes of version 1, and returns the URI."""
    del registry

    def make(episodes=800, **options):
        store = open_store(str(mlflow_store / "experience"))
        record(store, _WEIGHT, episodes, version=BEHAVIOUR, **options)
        with StageProgress() as progress:
            compact(store, MODEL, CompactOptions(), progress, NOW_NS)
        return store.uri

    return make


def run(*arguments, status):
    result = CliRunner().invoke(cli, list(map(str, arguments)), env={"COLUMNS": "100"})
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return " ".join(line for line in result.output.splitlines() if not line.startswith("["))


def ope(version, uri, *options, status):
    return " ".join(run("ope", f"models:/{MODEL}/{version}", "--experience", uri, *options, status=status).split())


def test_a_better_version_is_told_from_sampled_episodes_and_recorded_in_mlflow(recorded):
    uri = recorded()
    shown = ope(RIGHT, uri, status=0)
    assert "800 episodes with 1,600 steps of version 1, 800 of them with sampled actions." in shown
    assert "Is it better than what was recorded? Better." in shown
    (logged,) = mlflow.search_runs(["0"], output_format="list")
    figures = logged.data.metrics
    assert figures["ope/doubly_robust"] == pytest.approx(2, abs=0.05)
    assert 0 < figures["ope/difference_lower"] < 2 - figures["ope/baseline"] < figures["ope/difference_upper"]
    assert 200 < figures["ope/effective_episodes"] < 400
    assert logged.data.tags["ope.answer"] == "better"
    assert [each.dataset.name for each in logged.inputs.dataset_inputs] == [f"experience of {MODEL}"]
    found = mlflow.MlflowClient().get_model_version(MODEL, str(RIGHT))
    assert (found.tags["ope.answer"], found.tags["ope.run"]) == ("better", logged.info.run_id)
    assert "**Recorded episodes** say about it, against what was recorded: **better, difference +" in found.description
    ope(RIGHT, uri, "--against", f"models:/{MODEL}/{WRONG}", "--gamma", 0.9, status=0)
    description = mlflow.MlflowClient().get_model_version(MODEL, str(RIGHT)).description
    assert description.count("**Recorded episodes**") == 1
    assert "against version 3" in description


def test_a_worse_version_ends_with_status_3_and_is_not_promoted(recorded):
    uri = recorded()
    assert "Is it better than what was recorded? Worse." in ope(WRONG, uri, status=3)
    output = run("promote", WRONG, "--ope", uri, "--threshold", "-1", "--episodes", "2", status=1)
    assert "was not promoted to stage 'Production': the answer from recorded episodes is 'worse'." in output
    output = run("promote", WRONG, "--ope", uri, "--threshold", "-1", "--episodes", "2", "--force", status=0)
    assert "Recorded episodes: worse, difference -" in output
    last = promotion.timeline(Stage(MODEL, "Production"))[-1]
    assert (last.version, last.kind) == (WRONG, "forced")
    assert "; recorded episodes: worse, difference -" in last.why


def test_greedy_episodes_do_not_tell_and_block_a_promotion_only_if_better_is_demanded(recorded):
    uri = recorded(greedy_share=1.0)
    shown = ope(WRONG, uri, status=4)
    assert "Cannot tell: at 100% of the steps it takes actions that were recorded never or almost never" in shown
    assert "Serve with explore_share, and record more" in shown
    promote = "promote", WRONG, "--ope", uri, "--threshold", "-1", "--episodes", "2"
    output = run(*promote, "--ope-demand", "better", status=1)
    assert "the answer from recorded episodes is 'cannot tell' (at 100% of the steps" in output
    assert f"The stage 'Production' of '{MODEL}' now has version {WRONG}." in run(*promote, status=0)


def test_a_version_that_cannot_be_judged_is_promoted_by_force_only(recorded):
    uri = recorded(20, rewards=False)
    promote = "promote", WRONG, "--ope", uri, "--threshold", "1000", "--episodes", "2"
    output = run(*promote, status=1)
    assert "is below the threshold 1000; it cannot be judged from recorded episodes: 20 of 20 episodes have" in output
    dropped = run(*promote, "--ope-unreported", "drop", status=1)
    assert "can be used: 20 have unreported rewards. Use --force" in dropped
    assert f"now has version {WRONG}." in run(*promote, "--force", status=0)
    assert "; recorded episodes: not judged; " in promotion.timeline(Stage(MODEL, "Production"))[-1].why


def test_greedy_and_sampled_episodes_together_tell(recorded):
    shown = ope(WRONG, recorded(1500, greedy_share=0.5), status=3)
    assert "1,500 episodes with 3,000 steps of version 1, 7" in shown


def test_a_version_that_samples_can_be_judged(recorded):
    shown = ope(BEHAVIOUR, recorded(), "--target", "sampled", status=4)
    assert "Cannot tell: the interval of the difference contains 0." in shown
    assert "The episodes count like 800 of version 1; 0.0% of its steps are without support." in shown


def test_episodes_that_cannot_be_used_are_left_out_and_counted(recorded):
    uri = recorded()
    store = open_store(uri)
    record(store, _WEIGHT, 7, version=RIGHT, done=None)
    with StageProgress() as progress:
        compact(store, MODEL, CompactOptions(), progress, NOW_NS)
    assert "Left out: 7 have no reported end." in ope(RIGHT, uri, "--against", f"models:/{MODEL}/{WRONG}", status=0)


@pytest.mark.parametrize(
    ("version", "options", "arguments", "message"),
    [
        (RECURRENT, {}, (), "its observation space is"),
        (
            OTHER_SPACES,
            {},
            (),
            "Version 5 of 'cartpole-ppo' cannot be judged from these episodes",
        ),
        (RIGHT, {"rewards": False}, (), "20 of 20 episodes have steps without a reported reward"),
        (RIGHT, {"rewards": False}, ("--unreported", "drop"), "can be used: 20 have unreported rewards."),
        (RIGHT, {"done": None}, (), "No recorded episode of 'cartpole-ppo' can be used: 20 have no reported end."),
        (RIGHT, {"flags": DIGESTS}, (), "The observations of 'cartpole-ppo' were not recorded"),
        (99, {}, (), "No version of 'cartpole-ppo' has the number 99."),
    ],
)
def test_what_cannot_be_judged_gets_one_line(recorded, version, options, arguments, message):
    shown = ope(version, recorded(20, **options), *arguments, status=1)
    assert message in shown


def test_a_recurrent_version_and_one_without_a_distribution_are_refused():
    recurrent = Target(MODEL, RECURRENT, Policy.load(COUNTING_BUNDLE))
    with pytest.raises(RecurrentTarget, match="is recurrent"):
        recurrent.check()
    with pytest.raises(DistributionUnknown, match="has no output action_dist_inputs"):
        Target(MODEL, OTHER_SPACES, Policy.load(STEERING_BUNDLE), sampled=True).check()


def test_a_version_of_another_model_is_no_baseline(recorded, mlflow_store):
    Store(mlflow.get_tracking_uri(), mlflow_store).register("other", policy(1))
    shown = ope(RIGHT, recorded(20), "--against", "models:/other/1", status=1)
    assert "--against is a version of 'other', but the episodes are compared with 'cartpole-ppo'." in shown


@pytest.mark.usefixtures("registry")
def test_a_second_gate_sees_the_champion():
    seen = []

    def second(version, champion):
        seen.append((version.version, champion))
        return ["no"], "none"

    production = Stage(MODEL, "Production")
    gate = Gate(episodes=2, threshold=-1)
    promotion.promote(production, BEHAVIOUR, gate)
    with pytest.raises(PromotionRefused, match="no"):
        promotion.promote(production, RIGHT, replace(gate, second=second))
    assert seen == [(RIGHT, BEHAVIOUR)]
