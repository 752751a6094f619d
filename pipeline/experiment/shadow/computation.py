"""Computes decisions with the challenger and with the version that made them, and counts how they differ."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.experiment.shadow.actions import ActionComparison
from pipeline.experiment.shadow.distributions import TotalVariation
from pipeline.experiment.shadow.errors import ChallengerDiffers
from pipeline.experiment.shadow.figures import Figures
from pipeline.experiment.shadow.recorded import Served
from serving.experience.journal.records import VersionSpec
from serving.policy.bundle import Interface
from serving.policy.errors import PolicyFailed
from serving.policy.policy import Policy
from serving.policy.spaces import leaves
from serving.policy.tensors import ACTION, ACTION_DIST_INPUTS, ACTION_LOGP, OBSERVATIONS, STATE_IN, Tensors


class _Computed(NamedTuple):
    """The outputs of a policy for the rows that it could compute."""

    rows: NDArray[np.int64]
    outputs: Tensors


class ShadowedVersion:
    """A version that is served, beside the challenger.

    Args:
        challenger: The challenger.
        spec: The version, as it is recorded.
        figures: Receives what is found.
        champion: The policy of the version; None if its bundle is gone.
        missing: Why it is gone.
    """

    def __init__(
        self, challenger: Policy, spec: VersionSpec, figures: Figures, champion: Policy | None, missing: str = ""
    ) -> None:
        self._challenger, self.champion, self.missing = challenger, champion, missing
        self.spec, self.figures = spec, figures
        self.actions = ActionComparison(challenger.action_space)
        self.variation = TotalVariation(challenger.action_space)

    def add(self, served: Served) -> None:
        """Compute a batch of its decisions, and add what is found to the figures."""
        figures, size = self.figures, len(served)
        figures.decisions += size
        rows, outputs = _compute(self._challenger, served.inputs)
        figures.failed += size - len(rows)
        if not len(rows):
            return
        figures.non_finite += int((~_is_finite(outputs)).sum())
        champion = None
        if self.champion is not None:
            computed = _compute(self.champion, served.inputs)
            champion = computed.outputs if len(computed.rows) == size else None
        self._compare_actions(served, rows, outputs, champion)
        self._compare_distributions(served, rows, outputs, champion)

    def _compare_actions(
        self, served: Served, rows: NDArray[np.int64], outputs: Tensors, champion: Tensors | None
    ) -> None:
        """Compare greedy actions: those that were served, and what the version would have done where it sampled."""
        explored = served.explored[rows]
        known = np.ones(len(rows), np.bool_) if champion is not None else ~explored
        expected = {name: actions[rows] for name, actions in served.actions.items()}
        if champion is not None:
            for name, actions in expected.items():
                expected[name] = np.where(_column(explored, actions), champion[name][rows], actions)
        if not known.any():
            return
        found = self.actions(
            {name: outputs[name][known] for name in expected}, {name: each[known] for name, each in expected.items()}
        )
        self.figures.compared += int(known.sum())
        self.figures.agreeing += int(found.agrees.sum())
        if self.actions.has_numbers:
            self.figures.distance.add(found.distance)

    def _compare_distributions(
        self, served: Served, rows: NDArray[np.int64], outputs: Tensors, champion: Tensors | None
    ) -> None:
        one = outputs.get(ACTION_DIST_INPUTS)
        other = served.distribution if champion is None else champion.get(ACTION_DIST_INPUTS)
        if one is None or other is None:
            return
        one, other = one.reshape(len(one), -1), other.reshape(len(other), -1)[rows]
        if one.shape[1] == other.shape[1] == self.variation.size:
            self.figures.variation.add(self.variation(one, other))


def inputs_of(policy: Policy, inputs: Tensors) -> Tensors:
    """Return recorded inputs as those of a policy: with the recorded states, or initial ones if theirs differ."""
    rows = len(next(iter(inputs.values())))
    found = {name: tensor for name, tensor in inputs.items() if not name.startswith(STATE_IN)}
    for name, shape in policy.interface.state_shapes.items():
        recorded = inputs.get(STATE_IN + name)
        fits = recorded is not None and recorded.shape[1:] == shape
        found[STATE_IN + name] = recorded if fits and recorded is not None else np.zeros((rows, *shape), np.float32)
    return found


def check_spaces(challenger: int, interface: Interface, spec: VersionSpec) -> None:
    """Check that the challenger takes the recorded observations and returns the same kind of actions.

    Raises:
        ChallengerDiffers: It does not.
    """
    recorded = [each for each in spec.inputs if not each.name.startswith(STATE_IN)]
    for role, root, space, found in (
        ("observations", OBSERVATIONS, interface.observation_space, recorded),
        ("actions", ACTION, interface.action_space, list(spec.outputs)),
    ):
        own = {(leaf.tensor(root), np.dtype(leaf.space.dtype), tuple(leaf.space.shape or ())) for leaf in leaves(space)}
        theirs = {(each.name, np.dtype(each.dtype), tuple(each.shape)) for each in found}
        if own != theirs:
            names = ", ".join(f"{name} {shape} {dtype.name}" for name, dtype, shape in sorted(own - theirs, key=str))
            others = ", ".join(f"{name} {shape} {dtype.name}" for name, dtype, shape in sorted(theirs - own, key=str))
            raise ChallengerDiffers(challenger, spec.version, f"its {role} are {names}, and theirs {others}")


def _compute(policy: Policy, inputs: Tensors) -> _Computed:
    """Compute a batch; if that fails, each row by itself, to find those that fail."""
    feed = inputs_of(policy, inputs)
    details = tuple(name for name in (ACTION_DIST_INPUTS, ACTION_LOGP) if name in policy.details)
    names = (*policy.interface.required_outputs, *details)
    rows = np.arange(len(next(iter(feed.values()))))
    try:
        return _Computed(rows, policy.run(feed, names))
    except PolicyFailed:
        if len(rows) == 1:
            return _Computed(rows[:0], {})
    parts = [_compute(policy, {name: tensor[row : row + 1] for name, tensor in feed.items()}) for row in rows]
    found = [part.outputs for part in parts if len(part.rows)]
    kept = rows[[bool(len(part.rows)) for part in parts]]
    return _Computed(kept, {name: np.concatenate([each[name] for each in found]) for name in names if found})


def _is_finite(outputs: Tensors) -> NDArray[np.bool_]:
    """Return whether each row is finite. The logits of masked actions may be minus infinity."""
    rows = len(next(iter(outputs.values())))
    finite = np.ones(rows, np.bool_)
    for name, values in outputs.items():
        if values.dtype.kind != "f":
            continue
        flat = values.reshape(rows, -1)
        allowed = ~np.isnan(flat) if name in (ACTION_DIST_INPUTS, ACTION_LOGP) else np.isfinite(flat)
        finite &= allowed.all(axis=1)
    return finite


def _column(mask: NDArray[np.bool_], like: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return a mask of rows in a shape that broadcasts with `[rows, ...]`."""
    return mask.reshape(-1, *[1] * (like.ndim - 1))
