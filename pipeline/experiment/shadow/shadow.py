"""Computes the newest recorded decisions with a challenger, and compares its actions with those that were served."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pipeline.experience.raw import read_raw
from pipeline.experiment.shadow import latency, recorded
from pipeline.experiment.shadow.computation import ShadowedVersion, check_spaces
from pipeline.experiment.shadow.errors import NothingToShadow, ObservationsNotRecorded
from pipeline.experiment.shadow.figures import Figures, merged
from pipeline.experiment.shadow.latency import Latency
from pipeline.experiment.shadow.recorded import Selection, Served
from serving.errors import ServingError
from serving.experience.journal.records import VersionSpec
from serving.experience.store import Store
from serving.policy.bundle import BUNDLE_FILES
from serving.policy.policy import Policy
from serving.policy.tensors import STATE_IN
from serving.registry.model_version import ModelVersion
from serving.registry.registry import fetch, resolve

_RECORDED_STATES = (
    "The challenger is recurrent and was given the states of the version that was served. Unless it was trained from "
    "that one (train --from), it means other things by them, and agreement says little."
)
_INITIAL_STATES = (
    "The challenger is recurrent and has other states than the recorded ones, so each decision was computed from its "
    "initial state, as the first of an episode."
)


@dataclass(frozen=True)
class Shadow:
    """The result.

    Attributes:
        challenger: The version that was tried.
        versions: The figures of the decisions of each version that is served.
        latencies: By the size of the batch.
        is_exact: Whether the total variation is exact; otherwise it is an upper bound.
        has_numbers: Whether there are actions that are numbers.
        notes: What a reader has to know about the result.
        max_latency_ms: The limit of the challenger's 99th percentile.
    """

    challenger: ModelVersion
    versions: dict[int, Figures]
    latencies: list[Latency]
    is_exact: bool
    has_numbers: bool
    notes: tuple[str, ...]
    max_latency_ms: float

    @property
    def total(self) -> Figures:
        """The figures of all decisions together."""
        return merged(list(self.versions.values()))

    @property
    def is_finite(self) -> bool:
        """Whether the challenger computed finite numbers for all decisions."""
        return not (self.total.non_finite or self.total.failed)

    @property
    def is_fast(self) -> bool:
        """Whether 99% of the challenger's batches were computed within the limit."""
        return all(each.challenger[1] <= self.max_latency_ms for each in self.latencies)


@dataclass
class _Work:
    """The state of the computation, whose size does not depend on the number of decisions."""

    challenger: Policy
    number: int
    versions: dict[int, ShadowedVersion] = field(default_factory=dict)
    sample: Served | None = None
    """The newest decisions, with which the latency is measured."""
    largest_request: int = 1
    without_observations: int = 0

    def add(self, served: Served) -> None:
        number = served.spec.version
        known = self.versions.get(number)
        if known is None or known.spec != served.spec:
            check_spaces(self.number, self.challenger.interface, served.spec)
            self.versions[number] = _shadowed(self.challenger, served.spec, known.figures if known else Figures())
        self.versions[number].add(served)
        self.largest_request = max(self.largest_request, served.largest_request)
        self.sample = self.sample or served


def prepare(store: Store, model: str, version: int, decisions: int) -> tuple[ModelVersion, Selection]:
    """Resolve the challenger, and select the decisions that it is tried on.

    Raises:
        NothingToShadow: There are none.
        RawDamaged, StoreUnavailable: The manifests cannot be read.
        ModelUnknown, VersionMissing: There is no such version.
    """
    challenger = resolve(f"models:/{model}/{version}")
    selection = recorded.select(read_raw(store, model), version, decisions)
    if not selection.decisions:
        raise NothingToShadow(store.uri, model, version)
    return challenger, selection


def shadow(
    store: Store,
    challenger: ModelVersion,
    selection: Selection,
    max_latency_ms: float,
    advance: Callable[[int], object] = lambda _rows: None,
) -> Shadow:
    """Compute the selected decisions with the challenger. Memory does not depend on how many there are.

    Raises:
        ObservationsNotRecorded: None of the decisions has observations.
        ChallengerDiffers: The challenger's spaces are not those of the decisions.
        BundleError: The challenger cannot be loaded.
        RawDamaged, StoreUnavailable: The decisions cannot be read.
    """
    policy = Policy.load(fetch(challenger))
    work = _Work(policy, challenger.version)
    for file, rows in selection.files:
        table = recorded.read(store, file, rows)
        if recorded.has_observations(table.schema):
            for served in recorded.batches(table):
                work.add(served)
                advance(len(served))
        else:
            work.without_observations += len(table)
            advance(len(table))
    if work.sample is None:
        raise ObservationsNotRecorded(store.uri)
    newest = work.versions[work.sample.spec.version]
    sizes = latency.batch_sizes(work.largest_request)
    return Shadow(
        challenger,
        {number: each.figures for number, each in sorted(work.versions.items())},
        latency.measure(policy, newest.champion, work.sample.inputs, sizes),
        newest.variation.is_exact,
        newest.actions.has_numbers,
        tuple(_notes(work, work.sample)),
        max_latency_ms,
    )


def _shadowed(challenger: Policy, spec: VersionSpec, figures: Figures) -> ShadowedVersion:
    """Load the version that made decisions, if the registry still has the bundle that made them."""
    try:
        version = resolve(f"models:/{spec.name}/{spec.version}")
        if any(version.digests.get(file) != spec.digests.get(file) for file in BUNDLE_FILES):
            missing = "the registry has another bundle under its number."
            return ShadowedVersion(challenger, spec, figures, None, missing)
        return ShadowedVersion(challenger, spec, figures, Policy.load(fetch(version)))
    except ServingError as error:
        return ShadowedVersion(challenger, spec, figures, None, str(error))


def _notes(work: _Work, sample: Served) -> Iterator[str]:
    for number, each in sorted(work.versions.items()):
        if each.champion is None:
            yield (
                f"Version {number} cannot be computed, so its recorded actions are compared, and its latency is "
                f"unknown: {each.missing}"
            )
    if work.without_observations:
        yield f"{work.without_observations:,} decisions were recorded without observations, and left out."
    if shapes := work.challenger.interface.state_shapes:
        recorded = {name: tensor.shape[1:] for name, tensor in sample.inputs.items()}
        fits = all(recorded.get(STATE_IN + name) == shape for name, shape in shapes.items())
        yield _RECORDED_STATES if fits else _INITIAL_STATES
