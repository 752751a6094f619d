"""A controller raises the share, decides, and says why; the registry and the history have what it decided."""

import mlflow
import pytest

from pipeline.experiment.live import start as starting
from pipeline.registry import history
from tests.pipeline.experience.recording import MODEL
from tests.pipeline.experiment.live.world import CHAMPION, OTHER, TARGET


def run_of(live):
    return mlflow.MlflowClient().get_run(live.settings.run_id)


def test_an_equal_challenger_is_promoted_with_its_figures_in_the_history(world):
    live = world.start()
    world.play(1200)
    ended = world.controller().run()
    assert (ended.experiment.decision, ended.settings.finished) == ("promoted", True)
    assert TARGET.current_version() == OTHER
    event = history.events(TARGET)[-1]
    assert (event.version, event.kind) == (OTHER, "experiment")
    assert event.why.startswith(f"{live.experiment.id}: version 2 promoted: return ")
    assert " episodes against " in event.why
    run = run_of(live)
    assert run.info.status == "FINISHED"
    assert run.data.tags["experiment.decision"] == "promoted"
    assert run.data.metrics["difference/lower_bound"] > -20
    assert run.data.metrics["settled/challenger"] > 500
    assert [each.path for each in mlflow.MlflowClient().list_artifacts(live.settings.run_id)] == ["experiment.png"]


def test_a_worse_challenger_is_rolled_back_and_the_champion_stays(world):
    live = world.start()
    world.play(400, challenger=50.0)
    assert world.controller().run().experiment.decision == "rolled back"
    assert TARGET.current_version() == CHAMPION
    events = history.events(TARGET)
    assert [(each.version, each.kind) for each in events[-2:]] == [(CHAMPION, "by hand"), (CHAMPION, "experiment")]
    assert events[-1].why.startswith(f"{live.experiment.id}: version 2 rolled back: return ")
    assert world.live().experiment.share_at(world.now_s) == 0


def test_the_share_rises_after_enough_settled_episodes_and_never_falls(world):
    live = world.start(shares=(0.1, 0.5), step_episodes=20, margin_of_mean=0.05)
    controller = world.controller()
    controller.look()
    assert world.live() == live, "nothing is settled yet"
    world.play(400)
    controller.look()
    raised = world.live().experiment
    assert [step.share for step in raised.shares] == [0.1, 0.5]
    assert raised.shares[1].start_s == world.now_s + live.settings.delay_s
    controller.look()
    assert world.live().experiment == raised
    assert world.lines[0].startswith("Share 0.5 from ")


def test_the_share_does_not_rise_for_a_challenger_that_looks_worse(world):
    live = world.start(shares=(0.1, 0.5), step_episodes=20, minimum_episodes=1000, budget=10_000)
    world.play(1000, challenger=60.0)
    world.controller().look()
    assert world.live() == live


def test_too_few_settled_episodes_change_nothing(world):
    live = world.start()
    world.play(60)
    world.controller().look()
    assert world.live() == live


@pytest.mark.parametrize("silent", [0.3, 0.9])
def test_a_challenger_whose_clients_do_not_report_is_not_promoted(world, silent):
    """What is reported is as good as the champion's, and so is the default return."""
    world.start(default_return=100.0)
    world.play(1200, std=1.0, reports=lambda challenger, n: not (challenger and n % 10 < 10 * silent))
    ended = world.controller().run()
    assert ended.experiment.decision == "blocked"
    assert "the arms do not report alike" in ended.settings.why
    assert TARGET.current_version() == CHAMPION


def test_a_challenger_that_servers_do_not_let_act_is_not_promoted_for_the_champions_returns(world):
    world.start()
    world.play(1200, served=CHAMPION)
    ended = world.controller().run()
    assert ended.experiment.decision == "blocked"
    assert ended.settings.why.startswith("the challenger answered only 0% of its episodes")


def test_a_challenger_that_servers_refuse_after_a_while_is_taken_out_before_all_its_episodes_say_so(world):
    world.start(margin_of_mean=0.001)
    world.play(1600)
    controller = world.controller()
    controller.look()
    assert world.live().is_running
    world.play(40, served=CHAMPION)
    controller.look()
    assert world.live().is_running, "of the last fifty, some were its own"
    world.play(60, served=CHAMPION)
    assert controller.run().experiment.decision == "blocked"


def test_an_experiment_is_inconclusive_when_its_budget_is_used_up(world):
    world.start(budget=300, margin_of_mean=0.001)
    world.play(320)
    ended = world.controller().run()
    assert ended.experiment.decision == "inconclusive"
    assert ended.settings.why.startswith("the budget of 300 episodes is used up; return ")
    assert history.events(TARGET)[-1].version == CHAMPION


def test_an_experiment_is_inconclusive_when_its_time_is_over_and_all_its_episodes_are_settled(world):
    live = world.start(expires_s=60.0)
    controller = world.controller()
    world.now_s = live.deadline_s - 1
    controller.look()
    assert world.live().is_running
    world.now_s = live.deadline_s + 1
    assert controller.run().settings.why.startswith("its time was over; 0 and 0 settled episodes")


def test_a_manual_change_during_an_experiment_supersedes_it(world, registry):
    live = world.start()
    registry.promote(MODEL, registry.register(MODEL))
    ended = world.controller().run()
    assert ended.experiment.decision == "superseded"
    assert ended.settings.why == "the stage 'Production' was given version 3 during the experiment"
    assert run_of(live).info.status == "KILLED"
    assert run_of(live).data.tags["experiment.why"] == ended.settings.why
    assert "experiment" not in [each.kind for each in history.events(TARGET)]


def test_the_challenger_promoted_by_hand_supersedes_its_experiment(world, registry):
    world.start()
    world.play(1200)
    registry.promote(MODEL, OTHER)
    assert world.controller().run().experiment.decision == "superseded"
    assert [each.kind for each in history.events(TARGET)][-1] == "by hand"


def test_an_experiment_whose_tag_was_removed_ends_its_run(world):
    live = world.start()
    controller = world.controller()
    controller.look()
    mlflow.MlflowClient().delete_model_version_tag(MODEL, str(CHAMPION), "experiment.stage.Production")
    with pytest.raises(starting.state.ExperimentUnknown):
        controller.look()
    assert run_of(live).info.status == "KILLED"


def test_a_reported_decision_changes_nothing_but_the_run(world):
    live = world.start(decide="report")
    world.play(1200)
    controller = world.controller()
    controller.look()
    assert TARGET.current_version() == CHAMPION
    assert world.live() == live
    assert world.lines[-1].startswith("promoted: return ")
    assert run_of(live).data.tags["experiment.verdict"] == world.lines[-1]
    world.now_s = live.deadline_s + 1
    ended = controller.run()
    assert ended.experiment.decision == "reported"
    assert ended.settings.why.startswith("its time was over; promoted: return ")


def test_a_stopped_experiment_ends_its_controller(world):
    world.start()
    controller = world.controller()
    controller.look()
    starting.stop(TARGET, settle_s=0.0)
    assert controller.run().experiment.decision == "stopped"
    assert world.live().experiment.share_at(world.now_s) == 0


def test_a_controller_that_begins_anew_sees_what_the_first_one_saw(world):
    live = world.start(margin_of_mean=0.001)
    first = world.controller()
    for _ in range(3):
        world.play(100)
        first.look()
    anew = world.controller().observer.figures(live, world.now_s)
    assert anew == first.observer.figures(live, world.now_s)
    assert anew.settled == 300


def test_an_artifact_store_that_fails_costs_the_chart_and_nothing_else(world, monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("the bucket at https://user:secret@store is gone")

    monkeypatch.setattr(mlflow.MlflowClient, "log_figure", fail)
    world.start()
    world.play(1200)
    assert world.controller().run().experiment.decision == "promoted"
    assert "the chart of the experiment was not uploaded: the bucket at https://***@store is gone" in caplog.text


def test_an_experiment_whose_run_was_deleted_is_decided(world):
    live = world.start()
    mlflow.delete_run(live.settings.run_id)
    world.play(1200)
    ended = world.controller().run()
    assert (ended.experiment.decision, ended.settings.finished) == ("promoted", True)


def test_a_challenger_that_was_deleted_is_not_promoted_and_the_experiment_ends(world):
    world.start()
    world.play(1200)
    mlflow.MlflowClient().delete_model_version(MODEL, str(OTHER))
    ended = world.controller().run()
    assert (ended.experiment.decision, ended.settings.finished) == ("superseded", True)
    assert ended.settings.why == "version 2 no longer exists"
    assert TARGET.current_version() == CHAMPION


def test_both_versions_link_to_the_run(world):
    live = world.start()
    world.play(1200)
    world.controller().run()
    for version, role in ((CHAMPION, "champion"), (OTHER, "challenger")):
        found = mlflow.MlflowClient().get_model_version(MODEL, str(version))
        assert found.tags["experiment.run"] == live.settings.run_id
        assert found.tags["experiment.role"] == role
        assert f"runs/{live.settings.run_id}/" in found.description
        assert found.description.count("**Experiment**") == 1
        assert "promoted" in found.description
