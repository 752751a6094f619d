"""Commands that assign another version during an experiment say that it ends."""

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from tests.pipeline.experience.recording import MODEL
from tests.pipeline.experiment.live.world import CHAMPION, OTHER

FORCED = ("--episodes", "2", "--force")


def said_by(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return done.output


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
    assert said_by(*command).splitlines()[-1] == (
        f"Experiment {live.experiment.id}, version 2 against 1, ends as superseded: version 1 has left the stage "
        "'Production'. If no controller runs: python -m pipeline experiment run"
    )


def test_an_assignment_elsewhere_leaves_the_experiment_and_says_nothing_of_it(world):
    live = world.start()
    said = said_by("promote", str(OTHER), "--stage", "Staging") + said_by(
        "promote", str(OTHER), "--alias", "a", *FORCED
    )
    assert "Experiment" not in said
    world.controller().look()
    assert world.live() == live
