"""Which version stands in a stage or behind an alias: promotion past the gate, rollback, the list of versions."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlflow
from mlflow.entities.model_registry import ModelVersion as RegistryVersion

from pipeline.environments import make as environments
from pipeline.environments.make import Environment
from pipeline.errors import PipelineError
from pipeline.evaluation import evaluation
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.player import Player
from pipeline.registry import history
from pipeline.registry.errors import NothingToRollBack, PromotionRefused
from pipeline.registry.gate import Verdict
from pipeline.registry.history import Event
from pipeline.registry.target import STAGES, Slot, stages
from pipeline.tracking import run as tracking
from serving.errors import ServingError
from serving.policy.policy import Policy
from serving.registry.model_version import ModelVersion
from serving.registry.registry import fetch, resolve
from serving.registry.tracking import check_tracking_server


@dataclass(frozen=True)
class Gate:
    """How a challenger is judged.

    Attributes:
        episodes: Greedy episodes that challenger and champion both play.
        seed: Episode i is reset with `seed + i`, for both.
        threshold: The mean return to reach; by default what the version was trained to reach (its tag `target_return`),
            else the environment's reward threshold, else nothing.
        tolerance: The fraction of the champion's mean return that may be lost.
        force: Promote in spite of objections, which are recorded.
    """

    episodes: int = 100
    seed: int = 0
    threshold: float | None = None
    tolerance: float = 0.02
    force: bool = False


@dataclass(frozen=True)
class Promotion:
    """A promotion that was made.

    Attributes:
        slot: Where the version stands now.
        version: Its number.
        replaced: The version that stood there; None if none did, the same if nothing changed.
        verdict: The comparison; None where none was needed or possible.
        overridden: The objections that were overridden by force.
    """

    slot: Slot
    version: int
    replaced: int | None
    verdict: Verdict | None = None
    overridden: tuple[str, ...] = ()


@dataclass(frozen=True)
class VersionRow:
    """A line of the table of versions.

    Attributes:
        version: Its number.
        stage: `None`, as MLflow writes it, if it stands in no stage.
        aliases: Without the `@`.
        return_mean: Of its last evaluation, if there was one.
        age_s: Seconds since it was registered.
    """

    version: int
    stage: str
    aliases: tuple[str, ...]
    return_mean: float | None
    age_s: float


def promote(slot: Slot, version: int, gate: Gate) -> Promotion:
    """Put a version into a slot, if it may stand there, and archive what stood there.

    Only `Production` and aliases are guarded; anything may be put into `Staging` and `Archived`.

    Raises:
        TrackingServerUnreachable: Within seconds.
        ModelUnknown, VersionMissing: If there is no such version.
        BundleError: If the version is not one that could be served.
        PromotionRefused: If the gate objects; the registry is as it was.
    """
    check_tracking_server()
    challenger = resolve(f"models:/{slot.model}/{version}")
    # A change by hand goes on record before it is replaced.
    replaced = _last(history.events(slot))
    if replaced == version:
        return Promotion(slot, version, replaced)
    if not (slot.is_alias or slot.name == "Production"):
        _put(slot, challenger, "promotion", "not guarded")
        return Promotion(slot, version, replaced)
    with tracking.run(f"promote {slot.model} {version}") as run_id:
        verdict, objections = _judge(slot, challenger, replaced, gate)
        _log(run_id, slot, challenger, replaced, verdict, objections)
        if objections and not gate.force:
            raise PromotionRefused(version, str(slot), objections)
        figures = verdict.figures if verdict else "not compared"
        kind, why = ("forced", "; ".join([figures, *objections])) if objections else ("promotion", figures)
        _put(slot, challenger, kind, why)
        return Promotion(slot, version, replaced, verdict, tuple(objections))


def rollback(slot: Slot) -> Promotion:
    """Put the version that stood in a slot before the present one back, and archive the present one.

    Raises:
        TrackingServerUnreachable: Within seconds.
        ModelUnknown: If nothing is registered under this name.
        NothingToRollBack: If nothing else stood there that still exists.
    """
    check_tracking_server()
    existing = [row.version for row in versions(slot.model)]
    events = history.events(slot)
    present, version = _last(events), history.previous(events, existing)
    if version is None:
        raise NothingToRollBack(slot.model, str(slot), present)
    undone = f"undoes version {present}" if present else "nothing stood there"
    _put(slot, resolve(f"models:/{slot.model}/{version}"), history.ROLLBACK, undone)
    return Promotion(slot, version, present)


def timeline(slot: Slot) -> list[Event]:
    """The history of a slot, the oldest event first.

    Raises:
        TrackingServerUnreachable: Within seconds.
        ModelUnknown: If nothing is registered under this name.
    """
    check_tracking_server()
    resolve(f"models:/{slot.model}/latest")
    return history.events(slot)


def versions(name: str) -> list[VersionRow]:
    """All versions of a registered model, the newest first.

    Raises:
        TrackingServerUnreachable: Within seconds.
        ModelUnknown: If nothing is registered under this name.
    """
    check_tracking_server()
    resolve(f"models:/{name}/latest")
    for slot in history.slots(name):
        history.events(slot)
    client = mlflow.MlflowClient()
    with stages():
        aliases = client.get_registered_model(name).aliases
        found = client.search_model_versions(f"name = '{name}'")
    return sorted((_row(version, aliases) for version in found), key=lambda row: -row.version)


def _row(version: RegistryVersion, aliases: Mapping[str, str]) -> VersionRow:
    return_mean = version.tags.get("evaluation.return_mean")
    return VersionRow(
        version=int(version.version),
        stage=version.current_stage or "None",
        aliases=tuple(sorted(alias for alias, number in aliases.items() if int(number) == int(version.version))),
        return_mean=None if return_mean is None else float(return_mean),
        age_s=time.time() - version.creation_timestamp / 1000,
    )


def _last(events: Sequence[Event]) -> int | None:
    return events[-1].version if events else None


def _put(slot: Slot, version: ModelVersion, kind: str, why: str) -> None:
    slot.put(version.version)
    history.record(slot, version.version, kind, why)
    left = Slot(slot.model, version.stage)
    if not slot.is_alias and version.stage in STAGES and left != slot:
        history.record(left, left.occupant(), kind, f"version {version.version} moved to {slot}")


def _judge(slot: Slot, challenger: ModelVersion, champion: int | None, gate: Gate) -> tuple[Verdict | None, list[str]]:
    """The comparison, if there can be one, and what speaks against the challenger.

    A challenger that cannot be loaded is an error that no force overrides: it could not be served either.
    """
    policy = Policy.load(fetch(challenger))
    incumbent = None
    if champion is not None:
        try:
            incumbent = Policy.load(fetch(resolve(f"models:/{slot.model}/{champion}")))
        except ServingError as error:
            return None, [f"the champion, version {champion}, cannot be loaded to compare with: {error}"]
        differences = _space_differences(policy, incumbent)
        if differences:
            return None, differences
    try:
        environment = environments.of_policy(policy)
    except PipelineError as error:
        return None, [f"it cannot be evaluated here: {error}"]
    verdict = _compare(policy, incumbent, environment, _threshold(gate, challenger, environment), gate)
    return verdict, verdict.objections


def _space_differences(challenger: Policy, champion: Policy) -> list[str]:
    pairs = (
        ("observation", challenger.observation_space, champion.observation_space),
        ("action", challenger.action_space, champion.action_space),
    )
    return [f"its {role} space is {new}, the champion's is {old}" for role, new, old in pairs if new != old]


def _compare(
    challenger: Policy, champion: Policy | None, environment: Environment, threshold: float | None, gate: Gate
) -> Verdict:
    def play(policy: Policy) -> Evaluation:
        return evaluation.play(Player.served(policy), environment, gate.episodes, gate.seed)

    return Verdict(play(challenger), play(champion) if champion else None, threshold, gate.tolerance)


def _threshold(gate: Gate, challenger: ModelVersion, environment: Environment) -> float | None:
    if gate.threshold is not None:
        return gate.threshold
    trained_to = challenger.tags.get("target_return")
    return environment.reward_threshold if trained_to is None else float(trained_to)


def _log(
    run_id: str,
    slot: Slot,
    challenger: ModelVersion,
    champion: int | None,
    verdict: Verdict | None,
    objections: list[str],
) -> None:
    asked = {"version": challenger.version, "name": slot.model, "slot": str(slot), "champion": champion}
    tracking.log_params(run_id, asked)
    mlflow.set_tag("objections", "; ".join(objections) or "none")
    if verdict is None:
        return
    mlflow.log_metrics(
        {"challenger/return_mean": verdict.challenger.mean, "challenger/return_min": verdict.challenger.minimum}
    )
    if verdict.champion is not None and verdict.difference_bound is not None:
        compared = {"champion/return_mean": verdict.champion.mean, "champion/return_min": verdict.champion.minimum}
        mlflow.log_metrics(compared | {"difference/lower_bound": verdict.difference_bound})
