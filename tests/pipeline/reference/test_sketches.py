import numpy as np
import pytest

from pipeline.reference.dimensions import Dimension
from pipeline.reference.sketches import Sketches, StepRecorder, Steps, max_steps, quantiles_for, stride


@pytest.mark.parametrize("length", [1, 511, 512, 513, 1024, 1025, 3000])
def test_a_long_episode_keeps_every_second_fourth_or_eighth_step(length):
    recorder = StepRecorder(1)
    for step in range(length):
        recorder.add([7], np.array([[step]], np.float32))
    (episode,) = recorder.episodes()
    assert episode.length == length
    assert episode.numbers[:, 0].tolist() == list(range(0, length, stride(length, max_steps(1))))
    assert len(episode.numbers) <= max_steps(1)


def test_episodes_that_are_played_in_parallel_are_kept_apart():
    recorder = StepRecorder(2)
    recorder.add([0, 1], np.array([[1, 2], [3, 4]], np.float32))
    recorder.add([1], np.array([[5, 6]], np.float32))
    assert [each.numbers.tolist() for each in recorder.episodes()] == [[[1, 2]], [[3, 4], [5, 6]]]


def test_a_sketch_has_the_first_step_quantiles_of_numbers_and_shares_of_categories():
    numbers = np.stack([np.arange(100)[::-1], np.arange(100) % 4 + 5], axis=1).astype(np.float32)
    dimensions = (Dimension("0"), Dimension("1", 4, 5))
    sketches = Sketches.of([Steps(250, numbers), Steps(1, numbers[:1])], dimensions, 4)
    assert sketches.lengths.tolist() == [250, 1]
    assert sketches.first.tolist() == [[99, 5], [99, 5]]
    assert sketches.values[0].tolist() == [[12, 37, 62, 87], [99] * 4]
    assert sketches.values[1].tolist() == [[0.25] * 4, [1, 0, 0, 0]]


def test_many_dimensions_have_fewer_quantiles_so_that_the_file_stays_small():
    assert [quantiles_for(100, dimensions) for dimensions in (4, 376, 10_000)] == [16, 6, 4]
    assert quantiles_for(1, 1) == 16
