"""The state of an RLModule is passed from step to step as named arrays; the critic's stays zero unless it is needed."""

import pytest
import torch

from pipeline.export.recurrent_state import StateLayout


class Recurrent:
    """The part of an RLModule that a layout is read from."""

    def is_stateful(self):
        return True

    def get_initial_state(self):
        return {"critic": {"h": torch.zeros(4)}, "actor": {"h": torch.zeros(2), "c": torch.zeros(3)}}


@pytest.mark.parametrize(
    ("with_critic", "names"), [(False, ["actor.c", "actor.h"]), (True, ["actor.c", "actor.h", "critic.h"])]
)
def test_the_critics_state_is_passed_only_if_values_are_needed(with_critic, names):
    assert list(StateLayout.of(Recurrent(), with_critic=with_critic).shapes) == names


def test_nest_undoes_flatten_and_adds_the_constant_state():
    layout = StateLayout.of(Recurrent(), with_critic=False)
    states = [torch.full((5, 3), 1.0), torch.full((5, 2), 2.0)]
    nested = layout.nest(states)
    assert nested["critic"]["h"].shape == (5, 4)
    assert not nested["critic"]["h"].any()
    assert all(found is expected for found, expected in zip(layout.flatten(nested), states, strict=True))
