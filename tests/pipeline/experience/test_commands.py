"""The commands: what they print, their exit statuses, and one line for each mistake."""

import json
import os
import shlex

import pyarrow as pa
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.experience.whole_episodes import WholeEpisodes
from serving.experience.episodes import EpisodeHasher
from serving.experience.tables import model_directory
from tests.pipeline.experience.recording import (
    MODEL,
    Decision,
    Feedback,
    decision_table,
    feedback_table,
    spec,
    write_segment,
)


@pytest.fixture
def recorded(store):
    """Record one episode of three steps, which its client ended."""
    decisions = [Decision("a", step, 9000, {"observations": [0] * 4}, {"action": 1}) for step in range(3)]
    events = feedback_table([Feedback("a", 9000, {0: 2.0, 1: 2.0}, done="terminated")])
    write_segment(store, [decision_table(spec(), decisions)], events, dropped=(4, 1))
    return store


def run(*arguments, status=0):
    """Run a command of experience; return what it prints, without the lines of progress."""
    result = CliRunner().invoke(cli, ["experience", *map(str, arguments)], env={"COLUMNS": "100"})
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return "".join(line for line in result.output.splitlines(keepends=True) if not line.startswith("["))


def test_the_journey_from_raw_files_to_forgetting(recorded):
    uri = recorded.uri
    first = run("stats", uri)
    assert f"'{MODEL}': 1 segment, not compacted yet." in first
    assert f"Next: python -m pipeline experience compact {uri} --model {MODEL}" in first
    done = run("compact", uri)
    assert done.startswith(f"'{MODEL}': 1 whole episode with 3 decisions, in ")
    assert done.splitlines()[-1] == f"Next: python -m pipeline experience stats {uri} --model {MODEL}"
    shown = " ".join(run("stats", uri).split())
    assert "version episodes return min max length rewards reported 3 1 4.0 +- 0.0 4.0 4.0 3.0 67%" in shown
    assert "Not recorded: 4 decisions and 1 feedback event" in shown
    assert "Next:" not in shown
    assert "Forgotten: 3 decisions, 1 feedback event, and 3 steps of 1 whole episode." in run("forget", uri, "a")
    assert "Nothing was found of a. It was forgotten before, the name is another one, or the server has a key" in run(
        "forget", uri, "a"
    )


def test_the_commands_that_are_printed_run(recorded):
    command = run("stats", recorded.uri).splitlines()[-1].partition("python -m pipeline experience ")[2]
    command = run(*shlex.split(command)).splitlines()[-1].partition("python -m pipeline experience ")[2]
    run(*shlex.split(command))


def test_stats_as_json(recorded):
    run("compact", recorded.uri)
    found = json.loads(run("stats", recorded.uri, "--json"))
    assert (found["model"], found["versions"][0]["return_mean"], found["dropped_decisions"]) == (MODEL, 4.0, 4)


def test_a_default_reward_and_a_wait_are_options(recorded):
    run("compact", recorded.uri, "--default-reward", "-1.5", "--reward-wait-s", "0")
    (table,) = WholeEpisodes.open(recorded, MODEL).tables()
    assert table["rewards"].to_pylist() == [2.0, 2.0, -1.5]


def test_audit_fails_with_status_3_if_an_action_differs(recorded):
    assert run("audit", recorded.uri).split()[-4:] == ["3", "3", "0", "0"]
    wrong = Decision("b", 7, 9000, {"observations": [0] * 4}, {"action": 5}, audit="differs")
    write_segment(recorded, [decision_table(spec(), [wrong], segment=8)], segment=8)
    shown = run("audit", recorded.uri, status=3)
    assert f"decisions/{MODEL}/2027-01-14/r1-8-v3.parquet, segment 8 of r1, offset 0, row 0: version 3" in shown
    assert "step 7: served greedy action 5; recomputed inputs of the distribution: [0.5, 9000]" in shown
    assert "served" not in run("audit", recorded.uri, "--limit", 0, status=3)


def test_forget_hashes_with_the_key_of_the_server(store, tmp_path):
    key = tmp_path / "key"
    key.write_text("a secret of the servers\n")
    decisions = [Decision("a", 0, 9000, {"observations": [0] * 4}, {"action": 1})]
    table = decision_table(spec(), decisions)
    hashed = EpisodeHasher(b"a secret of the servers")("a")
    position = table.schema.names.index("episode")
    column = pa.array([hashed], table.schema.field("episode").type)
    table = table.set_column(position, table.schema.field("episode"), column)
    write_segment(store, [table])
    assert "the server has a key: pass it with --key-file" in run("forget", store.uri, "a")
    assert "Forgotten: 1 decision, " in run("forget", store.uri, "a", "--key-file", key)


def test_damaged_files_are_named(recorded):
    path = f"decisions/{MODEL}/2027-01-14/r1-0-v3.parquet"
    recorded.write(path, b"PAR1")
    assert f"not as their manifests say: {path}. Restore them from a copy" in run("compact", recorded.uri)


def test_one_of_several_models_must_be_chosen(recorded):
    write_segment(recorded, model=model_directory("other model/é"))
    assert "Choose one with --model: cartpole-ppo, other model/é." in run("stats", recorded.uri, status=1)
    assert "'other model/é': 1 segment" in run("stats", recorded.uri, "--model", "other model/é")


@pytest.mark.parametrize("command", ["stats", "compact", "audit", "forget"])
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("{tmp}/nowhere", "There is no experience at {tmp}/nowhere: there is no such directory. Pass the URI"),
        ("{tmp}/empty", "There is no experience at {tmp}/empty: it has no directory 'manifests' with a model."),
        ("ftp://host/path", "the experience URI 'ftp://host/path' is neither a local path, file:///PATH nor s3://"),
    ],
)
def test_a_wrong_uri_is_one_line_that_says_what_to_do(command, uri, message, tmp_path):
    (tmp_path / "empty").mkdir()
    shown = run(command, uri.format(tmp=tmp_path), *(["a"] if command == "forget" else []), status=1)
    assert message.format(tmp=tmp_path) in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


def test_an_s3_server_that_does_not_answer_is_one_line_that_says_what_to_check(monkeypatch):
    for name, value in {"MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    shown = run("stats", "s3://bucket/path", status=1)
    assert "Check the bucket, the network, and the variables AWS_ACCESS_KEY_ID" in shown
    assert shown.count("\n") == 1
    assert "secret-of-the-test" not in shown


def test_other_mistakes_are_one_line(recorded, tmp_path):
    wrong = run("stats", recorded.uri, "--model", "x", status=1)
    assert wrong == f"Error: There is no experience of the model 'x' at {recorded.uri}; there is of: {MODEL}.\n"
    missing = run("forget", recorded.uri, "a", "--key-file", tmp_path / "key", status=1)
    assert missing.startswith("Error: the key of episodes cannot be read from")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_store_without_permission_is_one_line(recorded):
    os.chmod(recorded.local / "manifests", 0)  # noqa: PTH101
    assert "cannot be used" in run("stats", recorded.uri, status=1)
