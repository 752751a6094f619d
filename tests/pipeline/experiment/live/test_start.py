"""What is checked before an experiment starts, and what a started one leaves in the registry; its commands."""

from dataclasses import replace

import mlflow
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.errors import Interrupted
from pipeline.experiment import errors
from pipeline.experiment.live import state
from pipeline.experiment.live.controller import Controller
from pipeline.experiment.live.start import start, stop
from pipeline.registry import promotion
from pipeline.registry.gate import Gate
from pipeline.registry.target import Target
from serving.integrity.requirements import Requirements
from serving.policy.bundle import Bundle
from serving.policy.errors import BundleError
from serving.registry.errors import VersionMissing
from serving.registry.registry import poll, resolve
from tests.pipeline.experience.recording import MODEL
from tests.pipeline.experiment.live.world import CHAMPION, OTHER, TARGET, World
from tests.serving.integrity.keys import private_pem, signer, trusted
from tests.serving.policies import CARTPOLE_BUNDLE, STEERING_BUNDLE

KEY = signer()
RETURNS = ("--return-mean", "100", "--return-std", "20")
FAST = ("--share", "0.5", "--margin", "20%", "--reward-wait", "20s", "--record-wait", "0")


def run(*arguments):
    return CliRunner().invoke(cli, arguments)


def test_a_started_experiment_is_one_tag_of_the_champion_that_each_poll_returns(world):
    live = world.start(shares=(0.1, 0.5))
    found = poll(f"models:/{MODEL}/Production")
    assert (found.version, found.challenger.version) == (CHAMPION, OTHER)
    assert found.experiment.share_at(live.settings.started_s + 5) == 0.0
    assert found.experiment.share_at(live.settings.started_s + 11) == 0.1
    assert state.find(TARGET) == live
    params = mlflow.MlflowClient().get_run(live.settings.run_id).data.params
    assert (params["champion"], params["challenger"], params["shares"]) == ("1", "2", "0.1, 0.5")


def test_the_tag_names_the_experience_wherever_the_next_command_runs(world, monkeypatch):
    monkeypatch.chdir(world.directory)
    live = start(TARGET, OTHER, replace(world.options(), experience="experience")).live
    assert live.settings.experience == world.uri


def test_the_budget_is_that_of_the_plan_and_of_the_steps_before_the_last_share(world):
    one, two = (world.options(shares=each) for each in ((0.5,), (0.1, 0.5)))
    first = start(TARGET, OTHER, one).live.settings.rules.budget
    stop(TARGET, settle_s=0.0)
    assert start(TARGET, OTHER, two).live.settings.rules.budget == first + 500


@pytest.mark.parametrize(
    ("error", "version", "options"),
    [
        (VersionMissing, 7, {}),
        (errors.ChallengerIsChampion, CHAMPION, {}),
        (errors.SpacesDiffer, 3, {}),
        (BundleError, 4, {}),
        (errors.StepsInvalid, OTHER, {"shares": (0.5, 0.1)}),
        (errors.StepsInvalid, OTHER, {"shares": (0.1, 1.0)}),
        (errors.MarginZero, OTHER, {"margin_of_mean": 0.0}),
        (errors.RulesInvalid, OTHER, {"default_return": 1000.0}),
    ],
)
def test_what_cannot_become_an_experiment_is_refused_and_nothing_is_written(registry, world, error, version, options):
    registry.register(MODEL, STEERING_BUNDLE)
    registry.register(MODEL, Bundle(b"no graph", CARTPOLE_BUNDLE.policy))
    with pytest.raises(error):
        start(TARGET, version, world.options(**options))
    assert state.find(TARGET) is None
    assert not mlflow.search_runs(["0"], output_format="list")


def test_a_stage_without_a_version_has_no_champion(world):
    with pytest.raises(errors.NoChampion, match="The stage 'Staging' of 'cartpole-ppo' has no version to compare with"):
        start(Target(MODEL, "Staging"), OTHER, world.options())


def test_one_experiment_runs_on_a_target_at_a_time(world):
    live = world.start()
    with pytest.raises(errors.ExperimentRunning, match=live.experiment.id):
        start(TARGET, OTHER, world.options())
    stop(TARGET, settle_s=0.0)
    assert start(TARGET, OTHER, world.options()).live.experiment.id != live.experiment.id


def test_an_experiment_that_was_superseded_without_a_controller_ends_when_the_next_one_starts(registry, world):
    live = world.start()
    registry.promote(MODEL, registry.register(MODEL))
    assert start(TARGET, OTHER, world.options()).live.experiment.champion == 3
    assert state.read(TARGET, CHAMPION).experiment.decision == "superseded"
    assert mlflow.MlflowClient().get_run(live.settings.run_id).info.status == "KILLED"


@pytest.mark.parametrize(("challenger", "status"), [(100.0, 0), (50.0, 1)])
def test_promote_with_a_canary_succeeds_if_the_version_was_promoted(world, monkeypatch, challenger, status):
    def play_and_run(_target, _signer, _notify, _every_s):
        world.now_s = world.live().experiment.shares[0].start_s
        world.play(600, challenger=challenger, std=1.0)
        return world.controller()

    monkeypatch.setattr("pipeline.experiment.live.controller.Controller", play_and_run)
    canary = ("--canary", "--experience", world.uri, *RETURNS, *FAST, "--episodes", "3")
    assert run("promote", "2", *canary).exit_code == status


def test_an_alias_has_an_experiment_of_its_own(registry):
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "blue", "1")
    world = World(registry.directory, Target(MODEL, "blue", is_alias=True)).open()
    world.start()
    assert state.find(TARGET) is None
    world.play(600, std=1.0)
    assert world.controller().run().experiment.decision == "promoted"
    assert world.target.current_version() == OTHER
    assert TARGET.current_version() == CHAMPION


def test_a_promotion_by_experiment_passes_what_servers_demand(world, tmp_path):
    promotion.promote(TARGET, CHAMPION, Gate(episodes=2), KEY)
    world.start()
    world.play(600, std=1.0)
    world.controller(signer=KEY).run()
    promoted = resolve(f"models:/{MODEL}/Production")
    assert promoted.version == OTHER
    Requirements((trusted(tmp_path, KEY),), require_gate=True).check(promoted)
    Requirements(require_gate=True).check(promoted)
    assert f'"experiment": "{world.live().experiment.id}"' in promoted.tags["gate.stage.Production"]


def test_the_commands_start_show_and_stop_an_experiment(world):
    options = ("--experience", world.uri, *RETURNS, *FAST, "--detach")
    started = run("experiment", "start", "2", *options)
    assert started.exit_code == 0, started.output
    assert "version 2 against 1, the stage 'Production' of 'cartpole-ppo', share 0.5 from " in started.output
    assert started.output.endswith("Next: python -m pipeline experiment run\n")
    world.now_s = world.live().experiment.shares[0].start_s
    world.play(100)
    shown = run("experiment", "status")
    assert shown.exit_code == 0, shown.output
    assert "mean return" in shown.output
    assert "Next: share 0.5 begins in a few seconds." in shown.output
    stopped = run("experiment", "stop")
    assert "version 2 against 1: stopped: a person stopped it." in stopped.output
    again = run("experiment", "stop")
    assert (again.exit_code, again.output.count("\n")) == (1, 1)
    assert "stopped" in run("experiment", "status").output
    assert "stopped" in run("experiment", "run").output


def test_an_interrupted_command_leaves_the_experiment_running_and_says_how_to_continue(world, monkeypatch):
    world.start()

    def interrupt(self):
        self.look()
        raise Interrupted("SIGINT")

    monkeypatch.setattr(Controller, "run", interrupt)
    result = run("experiment", "run")
    assert result.exit_code == 1
    assert "Continue: python -m pipeline experiment run\n" in result.output
    assert "Or end it: python -m pipeline experiment stop\n" in result.output
    assert world.live().is_running


def test_without_an_experiment_the_commands_say_so(registry):  # noqa: ARG001
    assert run("experiment", "status").output == (
        "There has been no experiment on the stage 'Production' of 'cartpole-ppo'.\n"
    )
    assert run("experiment", "run").exit_code == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--share", "half"), "is not of the form SHARE,SHARE,..."),
        (("--return-bounds", "1"), "is not of the form LOW,HIGH"),
        (("--expires", "soon"), "is no time"),
        (("--return-mean", "1"), "A plan needs the champion's returns from one source"),
        ((), "There are no whole episodes of 'cartpole-ppo'"),
    ],
)
def test_bad_options_are_refused_in_a_line_that_says_what_is_expected(world, options, said):
    result = run("experiment", "start", "2", "--experience", world.uri, *options)
    assert result.exit_code > 0
    assert said in result.output


def test_promote_with_a_canary_passes_the_gate_and_starts_the_experiment(world):
    canary = ("--canary", "--experience", world.uri, *RETURNS, *FAST, "--detach", "--episodes", "3")
    result = run("promote", "2", *canary)
    assert result.exit_code == 0, result.output
    assert "On the same 3 seeds" in result.output
    assert "Next: python -m pipeline experiment run" in result.output
    assert TARGET.current_version() == CHAMPION
    assert "gate.stage.Production" in mlflow.MlflowClient().get_model_version(MODEL, "2").tags
    assert world.live().is_running


def test_a_challenger_that_the_gate_rejects_gets_no_episode(world):
    result = run(
        "promote", "2", "--canary", "--experience", world.uri, *RETURNS, "--threshold", "501", "--episodes", "2"
    )
    assert result.exit_code == 1
    assert "is below the threshold 501" in result.output
    assert state.find(TARGET) is None


def test_a_canary_needs_experience(world):  # noqa: ARG001
    assert "--canary needs --experience" in run("promote", "2", "--canary").output


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        (("--share", "0.1"), "--share has no effect without --canary"),
        (("--experience", "somewhere"), "--experience has no effect without --canary"),
        (("--detach",), "--detach has no effect without --canary"),
        (("--every", "5s"), "--every has no effect without --canary"),
        (("--ope-demand", "better"), "--ope-demand has no effect without --ope"),
        (("--ope-unreported", "drop"), "--ope-unreported has no effect without --ope"),
    ],
)
def test_options_of_an_experiment_never_lead_to_a_promotion_without_one(world, options, needed):  # noqa: ARG001
    result = run("promote", "2", *options)
    assert result.exit_code == 2
    assert needed in result.output
    assert TARGET.current_version() == CHAMPION


def test_a_signed_canary_is_signed_when_it_is_promoted(world, tmp_path):
    file = tmp_path / "key.pem"
    file.write_bytes(private_pem(KEY.key))
    key = ("--signing-key", str(file))
    run("promote", "2", "--canary", "--experience", world.uri, *RETURNS, *FAST, "--detach", "--episodes", "3", *key)
    Requirements((trusted(tmp_path, KEY),), require_gate=True).check(resolve(f"models:/{MODEL}/2"))
