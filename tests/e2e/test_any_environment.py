"""The tutorial with an environment of one's own: each of its commands runs, and the policy passes the gate."""

import pytest

from tests.docs.pages import OWN_ENVIRONMENT, blocks, commands

pytestmark = pytest.mark.e2e


def test_the_environment_of_the_tutorial_is_trained_verified_and_promoted(workshop):
    (workshop.directory / "reach.py").write_text(blocks(OWN_ENVIRONMENT, "python")[0])
    for command in commands(OWN_ENVIRONMENT, "bash"):
        done = workshop.run("sh", "-c", command)
        assert done.returncode == 0, done.stderr
    done = workshop.python("pipeline", "promote", "1", "--name", "reach", "--episodes", "5")
    assert done.returncode == 0, done.stderr
