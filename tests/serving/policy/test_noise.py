from typing import Any

import numpy as np
import pytest
from scipy import stats

from serving.policy.errors import BundleInvalid
from serving.policy.noise import Noise, NoisePart

DESCRIPTION = [{"distribution": "gumbel", "size": 2}, {"distribution": "normal", "size": 1}]


def test_each_column_has_the_distribution_of_its_part() -> None:
    drawn = Noise.from_json(DESCRIPTION).draw(20_000, seed=0)
    assert (drawn.shape, drawn.dtype) == ((20_000, 3), np.float32)
    assert stats.kstest(drawn[:, 0], "gumbel_r").pvalue > 0.001
    assert stats.kstest(drawn[:, 1], "gumbel_r").pvalue > 0.001
    assert stats.kstest(drawn[:, 2], "norm").pvalue > 0.001
    assert abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.03


def test_parts_of_the_same_distribution_draw_different_noise() -> None:
    noise = Noise.from_json([{"distribution": "normal", "size": 2}] * 2)
    for seed in (None, 3):
        drawn = noise.draw(1000, seed=seed)
        assert abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.2, "columns of different parts are independent"


def test_a_seed_returns_the_same_rows_for_every_batch_size() -> None:
    noise = Noise.from_json(DESCRIPTION)
    np.testing.assert_array_equal(noise.draw(1, seed=7), noise.draw(5, seed=7)[:1])
    assert (noise.draw(1, seed=7) != noise.draw(1, seed=8)).all()
    noise.draw(1, seed=2**64 - 1)


def test_the_noise_of_many_seeds_is_that_of_each() -> None:
    noise = Noise((NoisePart("gumbel", 3), NoisePart("normal", 2), NoisePart("gumbel", 1)))
    limits = [0, 1, 2**32 - 1, 2**32, 2**33 + 5, 2**63, 2**64 - 1]
    seeds = np.array([*limits, *np.random.default_rng(0).integers(0, 2**64, 50, np.uint64).tolist()], np.uint64)
    expected = np.concatenate([noise.draw(1, seed) for seed in seeds.tolist()])
    assert np.array_equal(noise.draw_rows(seeds.tolist()), expected)
    assert noise.draw_rows([]).shape == (0, 6)


def test_without_a_seed_each_draw_differs() -> None:
    noise = Noise.from_json(DESCRIPTION)
    assert (noise.draw(1) != noise.draw(1)).all()


@pytest.mark.parametrize(
    "description",
    [
        None,
        [],
        {},
        [{}],
        ["gumbel"],
        [{"distribution": "cauchy", "size": 1}],
        [{"distribution": "normal", "size": 0}],
        [{"distribution": "normal", "size": "1"}],
    ],
    ids=str,
)
def test_an_invalid_description_is_rejected(description: Any) -> None:
    with pytest.raises(BundleInvalid, match=r'policy\.json is not valid: "noise" is '):
        Noise.from_json(description)
