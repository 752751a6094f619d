from typing import Any

import numpy as np
import pytest
from scipy import stats

from serving.policy.errors import BundleInvalid
from serving.policy.noise import Noise

DESCRIPTION = [{"distribution": "gumbel", "size": 2}, {"distribution": "normal", "size": 1}]


def test_noise_has_the_distribution_of_each_part_in_order() -> None:
    drawn = Noise.from_json(DESCRIPTION).draw(20_000, seed=0)
    assert (drawn.shape, drawn.dtype) == ((20_000, 3), np.float32)
    assert stats.kstest(drawn[:, 0], "gumbel_r").pvalue > 0.001
    assert stats.kstest(drawn[:, 1], "gumbel_r").pvalue > 0.001
    assert stats.kstest(drawn[:, 2], "norm").pvalue > 0.001
    assert abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.03


def test_a_seed_repeats_its_noise_whatever_the_batch() -> None:
    noise = Noise.from_json(DESCRIPTION)
    np.testing.assert_array_equal(noise.draw(1, seed=7), noise.draw(5, seed=7)[:1])
    assert (noise.draw(1, seed=7) != noise.draw(1, seed=8)).all()
    noise.draw(1, seed=2**64 - 1)


def test_without_a_seed_no_two_draws_are_equal() -> None:
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
def test_a_description_that_is_none_is_refused(description: Any) -> None:
    with pytest.raises(BundleInvalid, match=r'policy\.json is not valid: "noise" is '):
        Noise.from_json(description)
