"""The tutorial with an environment of one's own: each of its commands runs, and the policy passes the gate."""

import shlex

import pytest

from pipeline.cli import cli
from tests.docs.pages import OWN_ENVIRONMENT, blocks, commands

pytestmark = pytest.mark.e2e


def test_the_environment_of_the_tutorial_is_trained_verified_and_promoted(workshop, monkeypatch):
    (workshop.directory / "reach.py").write_text(blocks(OWN_ENVIRONMENT, "python")[0])
    monkeypatch.syspath_prepend(str(workshop.directory))
    for command in (*commands(OWN_ENVIRONMENT, "bash"), "python -m pipeline promote 1 --name reach --episodes 5"):
        arguments = shlex.split(command)
        assert arguments[:3] == ["python", "-m", "pipeline"]
        done = workshop.invoke(cli, *arguments[3:])
        assert done.exit_code == 0, done.output
