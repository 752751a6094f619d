import pytest
from click.testing import CliRunner
from gymnasium import spaces

from pipeline.cli import cli
from tests.pipeline.experience.exports.recorded import random_episode
from tests.serving.policies import CARTPOLE

DISCRETE = spaces.Discrete(2)


def invoke(whole, directory, *options):
    arguments = ["experience", "export", str(whole.store.uri), str(directory), *options]
    result = CliRunner().invoke(cli, arguments)
    return result.exit_code, [line for line in result.output.splitlines() if not line.startswith("[")]


def test_the_command_says_what_it_exported_what_it_left_out_and_how_to_load_it(recorded, tmp_path):
    truths = [
        random_episode("one", CARTPOLE, DISCRETE, 3),
        random_episode("two", CARTPOLE, DISCRETE, 4, version=2, done="truncated", reports_final=False),
        random_episode("gap", CARTPOLE, DISCRETE, 5, version=2, lost_steps={1}),
    ]
    whole = recorded(truths, CARTPOLE, DISCRETE)
    load = "minari.load_dataset('cartpole-ppo/experience-v0')"
    assert invoke(whole, tmp_path / "out", "--to", "minari") == (
        0,
        [
            f"Exported 2 episodes with 6 steps of version 1, 2 for Minari: {tmp_path}/out",
            "1 truncated episode one step shorter: nobody reported the final observation.",
            "Left out: 1 incomplete, as they lack decisions.",
            f"Next, in Minari: with MINARI_DATASETS_PATH={tmp_path}/out: {load}",
        ],
    )
    status, lines = invoke(whole, tmp_path / "second", "--to", "d3rlpy", "--versions", "2")
    assert status == 0
    assert lines[0].startswith("Exported 1 episode with 4 steps of version 2 for d3rlpy")


def test_an_error_is_one_line(recorded, tmp_path):
    whole = recorded([random_episode("one", CARTPOLE, DISCRETE, 3, reports_rewards=False)], CARTPOLE, DISCRETE)
    status, (line,) = invoke(whole, tmp_path / "out", "--to", "rllib")
    assert status == 1
    assert line.startswith("Error: 1 of 1 episodes have steps without a reported reward.")


@pytest.mark.parametrize("versions", ["", "three", "0", "1,,2", "99999999999", "-1"])
def test_versions_that_are_no_numbers_are_rejected(recorded, tmp_path, versions):
    whole = recorded([random_episode("one", CARTPOLE, DISCRETE, 3)], CARTPOLE, DISCRETE)
    status, lines = invoke(whole, tmp_path / "out", "--to", "rllib", "--versions", versions)
    assert status == 2
    assert "is no list of version numbers, such as 3,4" in lines[-1]
