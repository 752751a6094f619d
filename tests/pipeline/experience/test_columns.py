"""The columns of nested spaces, recurrent policies, and observations that are recorded as hashes or not at all."""

import numpy as np
import pytest

from pipeline.experience.errors import VersionNotRecorded
from pipeline.experience.whole_episodes import WholeEpisodes
from serving.experience.journal.records import DIGESTS, OMITTED
from serving.experience.tables import DIGEST_KEY, tensor_of
from tests.pipeline.experience.recording import (
    MODEL,
    Decision,
    Feedback,
    decision_table,
    feedback_table,
    spec,
    write_segment,
)

INPUTS = (
    ("observations.arm.position", "<f4", (3,)),
    ("observations.image", "|u1", (2, 3, 1)),
    ("observations.mode", "<i8", ()),
    ("observations.switches", "|b1", (4,)),
    ("state_in.h", "<f4", (8,)),
)
OUTPUTS = (("action.0", "<i8", ()), ("action.1", "<f4", (2,)))
NESTED = spec(inputs=INPUTS, outputs=OUTPUTS)


def tensors(specs, rng, rows):
    """Random arrays `[rows, *shape]` by name."""
    return {name: rng.integers(0, 2, (rows, *shape)).astype(dtype) for name, dtype, shape in specs}


def rows_of(inputs, outputs):
    for step in range(len(next(iter(inputs.values())))):
        sides = [{name: values[step] for name, values in side.items()} for side in (inputs, outputs)]
        yield Decision("a", step, 5000 - step, *sides)


@pytest.fixture
def nested(store, compacted):
    """Record an episode of nested spaces with a final observation; return its tensors and its table."""
    rng = np.random.default_rng(0)
    inputs, outputs = tensors(INPUTS, rng, 6), tensors(OUTPUTS, rng, 5)
    final = {name: values[5] for name, values in inputs.items() if name.startswith("observations")}
    decisions = rows_of({name: values[:5] for name, values in inputs.items()}, outputs)

    def record(final=final):
        events = feedback_table([Feedback("a", 4000, done="truncated", final=final)])
        write_segment(store, [decision_table(NESTED, list(decisions))], events)
        compacted()
        whole = WholeEpisodes.open(store, MODEL)
        return whole.schema, next(whole.tables())

    return inputs, outputs, final, record


def test_each_array_of_nested_spaces_and_states_has_a_column(nested):
    inputs, outputs, _, record = nested
    schema, table = record()
    for name, values in inputs.items():
        column = name.replace("observations", "obs")
        np.testing.assert_array_equal(tensor_of(table[column], schema.field(column)), values[:5])
        if name.startswith("observations"):
            column = f"new_{column}"
            np.testing.assert_array_equal(tensor_of(table[column], schema.field(column)), values[1:])
    for name, values in outputs.items():
        column = name.replace("action", "actions")
        np.testing.assert_array_equal(tensor_of(table[column], schema.field(column)), values)


@pytest.mark.parametrize("fault", ["an array is missing", "an array has another size"])
def test_a_final_observation_that_is_not_whole_is_left_out(nested, fault):
    _, _, final, record = nested
    if fault == "an array is missing":
        del final["observations.mode"]
    else:
        final["observations.image"] = np.zeros(5, np.uint8)
    schema, table = record(final)
    for name in schema.names:
        if name.startswith("new_obs."):
            assert table[name].null_count == 1
            assert table[name].is_valid().to_pylist() == [True] * 4 + [False]


def plain(name, version, rows, value=None, **options):
    inputs = {"observations": [1.0] * 4 if value is None else value}
    decisions = [Decision(name, step, 5000 - step, inputs, {"action": 0}) for step in range(rows)]
    return decision_table(spec(version), decisions, **options)


def test_observations_recorded_as_hashes_stay_hashes(store, compacted):
    events = feedback_table([Feedback("a", 4000, final={"observations": np.ones(4, np.float32)}, done="terminated")])
    write_segment(store, [plain("a", 3, 2, range(16), flags=DIGESTS)], events)
    compacted()
    whole = WholeEpisodes.open(store, MODEL)
    (table,) = whole.tables()
    assert DIGEST_KEY in whole.schema.field("obs").metadata
    assert table["obs"].to_pylist() == [list(range(16))] * 2
    assert table["new_obs"].to_pylist() == [list(range(16)), None]


def test_episodes_without_observations_have_no_columns_for_them(store, compacted):
    write_segment(store, [plain("a", 3, 2, flags=OMITTED)])
    compacted()
    assert not [name for name in WholeEpisodes.open(store, MODEL).schema.names if "obs" in name]


def test_versions_with_other_arrays_lie_in_other_files(store, compacted):
    other = spec(2, inputs=(("observations", "<f4", (2,)),))
    old = [Decision("old", 0, 6000, {"observations": [7.0, 8.0]}, {"action": 0})]
    write_segment(store, [plain("new", 3, 2), decision_table(other, old)])
    assert len(compacted().content["layouts"]) == 2
    assert WholeEpisodes.open(store, MODEL).summary()["version"].to_pylist() == [3]
    of_two = WholeEpisodes.open(store, MODEL, version=2)
    assert [table["obs"].to_pylist() for table in of_two.tables()] == [[[7.0, 8.0]]]
    assert of_two.summary()["version"].to_pylist() == [2]
    with pytest.raises(VersionNotRecorded, match="version 9 of 'cartpole-ppo'; there are of: 2, 3"):
        WholeEpisodes.open(store, MODEL, version=9)


def test_versions_with_the_same_arrays_lie_in_the_same_files(store, compacted):
    tables = [plain("old", 2, 1), plain("both", 3, 1)]
    first = decision_table(spec(2), [Decision("both", 1, 4000, {"observations": [2.0] * 4}, {"action": 0})])
    write_segment(store, tables)
    write_segment(store, [first], segment=1)
    assert len(compacted().content["layouts"]) == 1
    summary = WholeEpisodes.open(store, MODEL).summary()
    assert sorted(zip(summary["version"].to_pylist(), summary["versions"].to_pylist(), strict=True)) == [(2, 1), (3, 2)]
