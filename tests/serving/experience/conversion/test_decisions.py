import numpy as np
import pytest

from serving.experience.conversion.decisions import NO_NOISE, DecisionReader
from serving.experience.episodes import NO_EPISODE, NO_STEP, Episodes
from serving.experience.journal.records import DIGESTS, OMITTED, Decisions, VersionSpec, read_decisions
from serving.experience.journal.segment import Segment
from serving.experience.tables import INPUT, OUTPUT
from tests.serving.experience.conversion.journals import (
    CREATED_NS,
    HASHER,
    Actor,
    episodes,
    version_record,
    write_segment,
)
from tests.serving.policies import COUNTING_BUNDLE, EXPLORING_BUNDLE, ROBOT_BUNDLE, STEERING_BUNDLE

BUNDLES = {
    "discrete": EXPLORING_BUNDLE,
    "continuous": STEERING_BUNDLE,
    "recurrent": COUNTING_BUNDLE,
    "nested": ROBOT_BUNDLE,
}


def mixed_records(actor: Actor) -> list[bytes]:
    """Requests of all kinds, one after the other."""
    generator, payloads = np.random.default_rng(1), [version_record(actor.spec)]
    has_noise = actor.policy.interface.noise is not None
    for number in range(12):
        rows = (1, 3, 2)[number % 3]
        inputs = actor.inputs(rows, generator)
        seed = 7 + number if has_noise and number % 4 == 1 else None
        seeds = tuple(range(number, number + rows)) if has_noise and number % 4 == 2 else ()
        rewards = [0.5 * number] * rows if number % 2 else None
        names = Episodes([HASHER(f"e{number}")] * rows, list(range(rows)), rewards)
        outputs = actor.act(inputs, seed, seeds)
        payloads.append(actor.record(inputs, outputs, names, CREATED_NS + number, seed, seeds, protocol=number % 4))
    return payloads


def expected_rows(segment: Segment, spec: VersionSpec) -> list[tuple]:
    """What `read_decisions` returns for each record, row by row."""
    rows = []
    for record in segment.records:
        if record.kind != 3:
            continue
        read = read_decisions(record.payload, spec)
        rows += [(record.offset, row, *_row(read, row)) for row in range(len(read))]
    return rows


def _row(read: Decisions, row: int) -> tuple:
    seeds, rewards = read.seeds, read.episodes.rewards
    return (
        read.time_ns,
        read.protocol,
        read.episodes.ids[row],
        read.episodes.steps[row],
        None if seeds is None else (seeds[row], read.noise_rows[row]),
        None if rewards is None else rewards[row],
        *(tensor[row].tobytes() for tensor in (*read.inputs.values(), *read.outputs.values())),
    )


def read_rows(chunks) -> list[tuple]:
    protocols = ("native", "invocations", "inference_http", "inference_grpc")
    rows = []
    for chunk in chunks:
        columns = chunk.columns
        tensors = [values for name, values in columns.items() if name.startswith((INPUT, OUTPUT))]
        for row in range(len(chunk)):
            is_greedy = columns["noise_row"][row] == NO_NOISE
            reward = columns["previous_reward"][row]
            rows.append(
                (
                    columns["offset"][row],
                    columns["row"][row],
                    columns["time"][row],
                    protocols[columns["protocol"][row]],
                    columns["episode"][row].tobytes(),
                    columns["step"][row],
                    None if is_greedy else (columns["seed"][row], columns["noise_row"][row]),
                    None if np.isnan(reward) else reward,
                    *(tensor[row].tobytes() for tensor in tensors),
                )
            )
    return rows


@pytest.mark.parametrize("chunk_rows", [1, 5, 1000])
@pytest.mark.parametrize("bundle", BUNDLES.values(), ids=BUNDLES)
def test_records_of_all_layouts_are_read_as_one_by_one_and_in_order(tmp_path, bundle, chunk_rows):
    actor = Actor(bundle)
    segment = Segment.read(write_segment(tmp_path, 1, mixed_records(actor)))
    reader = DecisionReader(segment.records, chunk_rows)
    assert read_rows(reader) == expected_rows(segment, actor.spec)
    assert reader.unreadable == 0


def test_observations_that_are_hashes_or_left_out_are_tables_of_their_own(tmp_path):
    actor = Actor(EXPLORING_BUNDLE)
    inputs = actor.inputs(2, np.random.default_rng(1))
    outputs = actor.act(inputs)
    digests = {"observations": np.arange(32, dtype=np.uint8).reshape(2, 16)}
    payloads = [
        version_record(actor.spec),
        actor.record(digests, outputs, episodes(2), flags=DIGESTS),
        actor.record({}, outputs, episodes(2), flags=OMITTED),
    ]
    chunks = list(DecisionReader(Segment.read(write_segment(tmp_path, 1, payloads)).records))
    assert [(chunk.table.number, chunk.table.flags) for chunk in chunks] == [(1, DIGESTS), (2, OMITTED)]
    assert chunks[0].tensors(INPUT)["observations"].tolist() == digests["observations"].tolist()
    assert chunks[1].tensors(INPUT) == {}
    assert chunks[1].tensors(OUTPUT)["action"].tolist() == outputs["action"].tolist()


def test_a_version_number_that_was_registered_again_is_another_table(tmp_path):
    one, other = Actor(EXPLORING_BUNDLE), Actor(STEERING_BUNDLE)
    inputs = [actor.inputs(1, np.random.default_rng(1)) for actor in (one, other)]
    records = [
        actor.record(observed, actor.act(observed), episodes(1))
        for actor, observed in zip((one, other), inputs, strict=True)
    ]
    payloads = [version_record(one.spec), records[0], version_record(other.spec), records[1]]
    payloads += [version_record(one.spec), records[0]]
    chunks = list(DecisionReader(Segment.read(write_segment(tmp_path, 1, payloads)).records))
    assert [(chunk.table.number, chunk.table.version, len(chunk)) for chunk in chunks] == [
        (1, one.spec, 2),
        (2, other.spec, 1),
    ]


def test_records_that_do_not_fit_their_version_are_counted(tmp_path):
    actor = Actor(EXPLORING_BUNDLE)
    inputs = actor.inputs(1, np.random.default_rng(1))
    good = actor.record(inputs, actor.act(inputs), episodes(1))
    unknown = bytearray(good)
    unknown[4] = 9  # the version
    none = bytearray(good)
    none[8:12] = b"\xff\xff\xff\xff"  # the number of rows
    payloads = [good, version_record(actor.spec), good, good + b"\0", bytes(unknown), bytes(none), b"\x03", good]
    reader = DecisionReader(Segment.read(write_segment(tmp_path, 1, payloads)).records)
    assert sum(map(len, reader)) == 2
    assert reader.unreadable == 5


def test_an_observation_without_episode_is_read(tmp_path):
    actor = Actor(EXPLORING_BUNDLE)
    inputs = actor.inputs(1, np.random.default_rng(1))
    record = actor.record(inputs, actor.act(inputs), Episodes([NO_EPISODE], [NO_STEP]))
    (chunk,) = DecisionReader(Segment.read(write_segment(tmp_path, 1, [version_record(actor.spec), record])).records)
    assert (chunk.columns["step"].tolist(), chunk.columns["episode"].any()) == ([NO_STEP], False)
