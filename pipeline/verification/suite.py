"""The conformance suite: a registered version acts as RLlib would with its checkpoint.

On seeded observations, from rollouts and from the corners of the space, whatever the batch, through Python and through
HTTP, greedy and sampled.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from pipeline.bundle.equivalence import compare, draw
from pipeline.bundle.errors import ExportDiffers
from pipeline.environments import make as environments
from pipeline.environments.make import Environment
from pipeline.environments.nested_spaces import Batch, flatten, nest, stack
from pipeline.evaluation import evaluation
from pipeline.evaluation.player import Player, State
from pipeline.export.action_heads import Heads, is_choice
from pipeline.verification.checks import Check
from pipeline.verification.rllib_reference import Reference
from serving.policy.policy import Policy
from serving.policy.spaces import LeafSpace, leaves
from serving.policy.tensors import ACTION, ACTION_DIST_INPUTS, NOISE, OBSERVATIONS, STATE_IN
from serving.registry.registry import fetch, resolve
from serving.registry.tracking import check_tracking_server

CHECKPOINT_DIRECTORY = "checkpoint"

#: Batches that the graph is asked in; 0 is all at once.
BATCHES = (1, 7, 0)

#: Observations that are sampled from, and how often from each.
_SAMPLED_OBSERVATIONS = 5
SAMPLES = 500

#: How probable a false alarm of all distribution tests together is.
_FALSE_ALARM = 1e-3

#: Bounds beyond this are no bounds: networks overflow there.
_FAR = 1e6
_UNBOUNDED_CORNER = 10.0


@dataclass(frozen=True)
class Question:
    """What a policy is asked: an observation, and the state that it is met with."""

    observation: Any
    state: State


class Subject:
    """A policy beside what RLlib makes of its checkpoint, and the questions to both.

    Args:
        policy: As serving loads it.
        checkpoint: RLlib's, of the same version.
        environment: For rollouts.
        count: How many questions.
        seed: Of the questions.
    """

    def __init__(self, policy: Policy, checkpoint: Path, environment: Environment, count: int, seed: int) -> None:
        self.policy = policy
        self.player = Player.served(policy)
        self.environment = environment
        self.observation_space, self.action_space = policy.observation_space, policy.action_space
        self.reference = Reference(checkpoint, self.observation_space, self.action_space)
        self.generator = np.random.default_rng(seed)
        self.questions = list(self._questions(count, seed))
        self.expected = self.reference.act(*_parts(self.questions))

    def _questions(self, count: int, seed: int) -> Iterator[Question]:
        rollouts = evaluation.visited(self.player, self.environment, count // 2, seed)
        yield from (Question(*each) for each in rollouts)
        self.observation_space.seed(seed)
        for index in range(count - len(rollouts)):
            observation = self.observation_space.sample() if index % 2 else self._corner()
            yield Question(_representable(self.observation_space, observation), self._random_state())

    def _corner(self) -> Any:
        return nest(
            self.observation_space, [_corner(leaf.space, self.generator) for leaf in leaves(self.observation_space)]
        )

    def _random_state(self) -> State:
        shapes = self.player.state_shapes.items()
        return {name: self.generator.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes}

    def outputs(self, questions: Sequence[Question], noise: NDArray[Any] | None = None) -> Batch:
        """The graph's actions and distribution inputs."""
        observations, states = _parts(questions)
        feeds = stack(self.observation_space, observations, OBSERVATIONS)
        feeds |= {STATE_IN + name: np.stack([state[name] for state in states]) for name in self.player.state_shapes}
        if noise is not None:
            feeds[NOISE] = noise
        names = [*(leaf.tensor(ACTION) for leaf in leaves(self.action_space)), ACTION_DIST_INPUTS]
        return self.policy.run(feeds, names)


def verify(model_uri: str, count: int, seed: int, url: str | None = None, token: str | None = None) -> list[Check]:
    """Put a registered version through the suite.

    Args:
        model_uri: `models:/NAME/VERSION`, or a stage, an alias, `latest`.
        count: How many observations.
        seed: Of the observations.
        url: Of a server of this version, to be asked as well.
        token: The bearer token, if that server asks for one.

    Raises:
        ServingError: If the version cannot be resolved, fetched, verified or loaded.
        EnvironmentNotFound, NoSuchObject: If its environment is not installed here.
        ServerAnswered, ServesAnother: If the server answers with an error, or serves something else.
    """
    check_tracking_server()
    version = resolve(model_uri)
    policy = Policy.load(fetch(version))
    with tempfile.TemporaryDirectory() as directory:
        source = f"{version.pinned_uri}/{CHECKPOINT_DIRECTORY}"
        checkpoint = mlflow.artifacts.download_artifacts(source, dst_path=directory)
        subject = Subject(policy, Path(checkpoint), environments.of_policy(policy), count, seed)
    checks = list(in_process(subject))
    if url is not None:
        from pipeline.verification.over_http import Server, through_http

        checks.extend(through_http(subject, Server(url, (version.name, version.version), token)))
    return checks


def in_process(subject: Subject) -> Iterator[Check]:
    """Ask the graph through Python."""
    for batch in BATCHES:
        size = batch or len(subject.questions)
        yield _compared(f"greedy, batches of {size}", subject, _in_batches(subject, size))
    if subject.policy.interface.noise is not None:
        yield sampled("sampled", subject, subject_samples(subject))


def _in_batches(subject: Subject, size: int) -> Batch:
    parts = [
        subject.outputs(subject.questions[start : start + size]) for start in range(0, len(subject.questions), size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _compared(name: str, subject: Subject, found: Batch) -> Check:
    try:
        compare(subject.action_space, subject.expected, found)
    except ExportDiffers as error:
        return Check(name, len(subject.questions), f"{error.quantity} differ by {error.difference:.3g}")
    return Check(name, len(subject.questions), None)


def sampled_questions(subject: Subject) -> list[Question]:
    """The questions that are asked again and again, spread over all."""
    step = max(1, len(subject.questions) // _SAMPLED_OBSERVATIONS)
    return subject.questions[::step][:_SAMPLED_OBSERVATIONS]


def subject_samples(subject: Subject) -> list[Batch]:
    """The graph's samples of each of these questions."""
    noise = Heads(subject.action_space).noise
    return [
        subject.outputs([question] * SAMPLES, draw(noise, SAMPLES, subject.generator))
        for question in sampled_questions(subject)
    ]


def sampled(name: str, subject: Subject, samples: Sequence[Batch]) -> Check:
    """Compare samples with RLlib's: each component of each action, by a test of whether both have one distribution.

    Choices by chi-squared, continuous ones by Kolmogorov and Smirnov's test of two samples.
    """
    questions = sampled_questions(subject)
    p_values = []
    for question, found in zip(questions, samples, strict=True):
        expected = subject.reference.sample(question.observation, question.state, SAMPLES)
        p_values += list(_p_values(subject.action_space, expected, found))
    asked = len(questions) * SAMPLES
    if min(p_values) < _FALSE_ALARM / len(p_values):
        return Check(name, asked, f"samples are not from RLlib's distribution (p = {min(p_values):.1g})")
    return Check(name, asked, None)


def _p_values(space: Space[Any], expected: Batch, found: Batch) -> Iterator[float]:
    from scipy import stats

    for leaf in leaves(space):
        ours, theirs = (each[leaf.tensor(ACTION)].reshape(SAMPLES, -1) for each in (found, expected))
        for mine, its in zip(ours.T, theirs.T, strict=True):
            if not is_choice(leaf.space):
                yield float(stats.ks_2samp(mine, its).pvalue)
                continue
            values, which = np.unique(np.concatenate([mine, its]), return_inverse=True)
            if len(values) > 1:
                counts = [np.bincount(part, minlength=len(values)) for part in np.split(which, 2)]
                yield float(stats.chi2_contingency(_without_rare(np.array(counts))).pvalue)
            else:
                yield 1.0


def _without_rare(counts: NDArray[Any]) -> NDArray[Any]:
    """The counts of choices; those too rare for the test as one."""
    rare = counts.sum(axis=0) < 10  # noqa: PLR2004  # 5 expected of each: the usual rule
    if not rare.any() or rare.all():
        return counts
    return np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)])


def _parts(questions: Sequence[Question]) -> tuple[list[Any], list[State]]:
    return [each.observation for each in questions], [each.state for each in questions]


def _corner(space: LeafSpace, generator: np.random.Generator) -> Any:
    """An element of a leaf each of whose numbers is the least or the greatest."""
    if isinstance(space, spaces.Discrete):
        return int(space.start) + (int(space.n) - 1) * int(generator.integers(2))
    low: NDArray[Any]
    high: NDArray[Any]
    if isinstance(space, spaces.MultiBinary):
        low, high = np.zeros(space.shape), np.ones(space.shape)
    elif isinstance(space, spaces.MultiDiscrete):
        low, high = space.start, space.start + space.nvec - 1
    else:
        low = np.where(space.low < -_FAR, -_UNBOUNDED_CORNER, space.low)
        high = np.where(space.high > _FAR, _UNBOUNDED_CORNER, space.high)
    return np.where(generator.integers(2, size=space.shape), high, low).astype(space.dtype)


def _representable(space: Space[Any], observation: Any) -> Any:
    """The observation in the leaves' own dtypes, with nothing that a network overflows on."""
    flat = zip(leaves(space), flatten(space, observation), strict=True)
    return nest(space, [_near(np.asarray(value, leaf.space.dtype)) for leaf, value in flat])


def _near(value: NDArray[Any]) -> NDArray[Any]:
    return np.clip(value, -_FAR, _FAR).astype(value.dtype) if np.issubdtype(value.dtype, np.floating) else value
