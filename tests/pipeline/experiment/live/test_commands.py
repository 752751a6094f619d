"""Commands say how an experiment stands, who watches it, what comes next, and that they end it."""

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.commands.experiment.status_output import next_step
from pipeline.experiment.live import start as starting
from pipeline.experiment.live.figures import Arm, Figures
from pipeline.experiment.live.lease import Lease
from tests.pipeline.experience.recording import MODEL
from tests.pipeline.experiment.live.test_figures import EXPIRES_S, live_of
from tests.pipeline.experiment.live.world import CHAMPION, OTHER, TARGET

RUN = "python -m pipeline experiment run"
SUPERSEDED = "version 2 against 1, has ended as superseded: version 1 has left the stage 'Production'."
FORCED = ("--episodes", "2", "--force")


def said_by(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def status() -> list[str]:
    return said_by("experiment", "status").splitlines()


def test_an_experiment_that_no_controller_watches_says_so_until_one_does(world):
    live = world.start()
    assert status()[-2] == f"No controller runs, so nobody raises the share or decides. Run one: {RUN}"
    assert Lease(live, settle_s=0.0, owner="other-host:1:x").acquire() is None
    assert not any("No controller" in line for line in status())


def test_an_experiment_that_has_ended_names_the_command_that_may_follow(world):
    world.start()
    starting.stop(TARGET, settle_s=0.0)
    assert status()[-1] == f"Another one: python -m pipeline experiment start 2 --experience {world.uri}"


@pytest.mark.parametrize(
    ("changes", "beginning"),
    [
        ({}, "share 0.5 after 40 more settled episodes"),
        ({"at_s": EXPIRES_S}, "it has expired"),
        ({"settled_served": 0.5}, "the challenger began only 50% of its settled episodes"),
        ({"difference": -5.0, "error": 1.0}, "the challenger looks worse"),
        ({"champion": Arm()}, "no episodes are recorded yet"),
        ({"at_s": 999.0}, "share 0.5 begins in a few seconds"),
    ],
)
def test_the_next_step_follows_from_the_figures(changes, beginning):
    known = {"champion": Arm(20, 20, 20, 100.0), "settled_at_share": 10, "settled_served": 1.0}
    assert next_step(live_of(), Figures(**{"at_s": 2000.0, "share": 0.5, **known, **changes})).startswith(beginning)


@pytest.mark.parametrize(
    "command",
    [("promote", str(OTHER), *FORCED), ("rollback",), ("promote", str(CHAMPION), "--stage", "Staging")],
    ids=["promote", "rollback", "the champion moves to another stage"],
)
def test_a_command_that_supersedes_an_experiment_says_so(world, registry, command):
    if command == ("rollback",):
        registry.register(MODEL)
        for version in ("3", str(CHAMPION)):
            said_by("promote", version, *FORCED)
    live = world.start()
    assert said_by(*command).splitlines()[-1] == f"Experiment {live.experiment.id}, {SUPERSEDED}"
    assert (world.live().experiment.decision, world.live().settings.finished) == ("superseded", True)


def test_a_rollback_to_the_champion_of_a_superseded_experiment_does_not_let_it_go_on(world, registry):
    """A person assigned the challenger in MLflow's user interface, and no controller was running."""
    live = world.start()
    registry.promote(MODEL, OTHER)
    assert said_by("rollback").splitlines()[0] == f"Experiment {live.experiment.id}, {SUPERSEDED}"
    assert TARGET.current_version() == CHAMPION
    assert world.live().experiment.share_at(world.now_s) == 0


def test_an_assignment_elsewhere_leaves_the_experiment_and_says_nothing_of_it(world):
    live = world.start()
    said = said_by("promote", str(OTHER), "--stage", "Staging") + said_by(
        "promote", str(OTHER), "--alias", "a", *FORCED
    )
    assert "Experiment" not in said
    world.controller().look()
    assert world.live() == live
