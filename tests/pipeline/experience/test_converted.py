"""From the journal of a replica to whole episodes, through the real converter."""

import base64

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.experience.forgetting import forget
from pipeline.experience.raw import read_raw
from pipeline.experience.whole_episodes import WholeEpisodes
from serving.experience.tables import tensor_of
from tests.pipeline.experience.recording import MODEL
from tests.serving.experience.conversion.journals import (
    CREATED_NS,
    HASHER,
    NO_EPISODES,
    Actor,
    converter,
    episodes,
    feedback_record,
    put_into_cache,
    version_record,
    write_segment,
)
from tests.serving.policies import COUNTING_BUNDLE, EXPLORING_BUNDLE, ROBOT_BUNDLE

STEPS = 6


@pytest.fixture(params=[EXPLORING_BUNDLE, ROBOT_BUNDLE, COUNTING_BUNDLE], ids=["one array", "nested", "recurrent"])
def actor(request):
    return Actor(request.param)


@pytest.fixture
def converted(actor, store, tmp_path):
    """Convert a segment with one episode; return the tensors of its inputs and actions."""
    cache = tmp_path / "cache"
    put_into_cache(cache, actor.name, actor.number, actor.bundle)
    inputs = actor.inputs(STEPS + 1, np.random.default_rng(0))
    final = {name: values[STEPS] for name, values in inputs.items() if name.startswith("observations")}
    inputs = {name: values[:STEPS] for name, values in inputs.items()}
    actions = actor.act(inputs)
    one = {name: values[:1] for name, values in inputs.items()}
    report = feedback_record(
        rewards=[[step, step / 2] for step in range(STEPS)],
        done="terminated",
        final_observation={name: base64.b64encode(value.tobytes()).decode() for name, value in final.items()},
    )
    decided = actor.record(inputs, actions, episodes(STEPS))
    alone = actor.record(one, actor.act(one), NO_EPISODES)
    path = write_segment(tmp_path / "journal", 1, [version_record(actor.spec), decided, alone, report])
    converter(store.local, cache).convert(path)
    return inputs, actions, final


def test_a_converted_segment_becomes_a_whole_episode(actor, store, converted, compacted):
    inputs, actions, final = converted
    content = compacted().content
    assert (content["left_out"]["without_episode"], content["left_out"]["unconverted_files"]) == (1, 0)
    whole = WholeEpisodes.open(store, MODEL)
    (table,) = whole.tables()
    for name, values in (inputs | actions).items():
        root, _, path = name.partition(".")
        column = {"observations": "obs", "action": "actions"}.get(root, root) + (path and f".{path}")
        np.testing.assert_array_equal(tensor_of(table[column], whole.schema.field(column)), values)
        if root == "observations":
            after = np.concatenate([values[1:], final[name][None]])
            np.testing.assert_array_equal(tensor_of(table[f"new_{column}"], whole.schema.field(f"new_{column}")), after)
    assert table["rewards"].to_pylist() == [step / 2 for step in range(STEPS)]
    assert table["action_logp"].null_count == 0 or "action_logp" not in actor.policy.details
    assert whole.summary().to_pylist()[0]["complete"]


@pytest.mark.usefixtures("converted")
def test_a_converted_segment_has_an_audit(store):
    result = CliRunner().invoke(cli, ["experience", "audit", store.uri])
    assert (result.exit_code, result.output.split()[-4:]) == (0, ["3", str(STEPS + 1), "0", "0"])


@pytest.mark.usefixtures("converted")
def test_nothing_is_left_of_a_converted_episode(store, compacted, quiet):
    compacted()
    done = forget(store, [MODEL], [HASHER("e")], quiet)
    assert (done.decisions, done.feedback, done.steps) == (STEPS, 1, STEPS)
    (manifest,) = read_raw(store, MODEL).manifests
    assert (manifest.content["decisions"], manifest.content["feedback"], manifest.time) == (1, 0, (CREATED_NS,) * 2)
    assert manifest.versions[3]["audit"] == {"ok": 1}
    traces = (HASHER("e"), HASHER("e").hex().encode())
    files = [file for file in store.local.rglob("*") if file.is_file()]
    assert not [file for file in files if any(trace in file.read_bytes() for trace in traces)]
