"""Promotes versions to a stage or alias, rolls back, and lists versions."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion as RegistryVersion

from pipeline.environments import make as environments
from pipeline.environments.make import Environment
from pipeline.evaluation import evaluation
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.player import Player
from pipeline.registry import history
from pipeline.registry.errors import NothingToRollBack, PromotionRefused
from pipeline.registry.gate import Gate, Verdict
from pipeline.registry.history import Change, Event
from pipeline.registry.signing import Signer, is_unrecorded, record_gate, sign
from pipeline.registry.target import STAGES, Target
from pipeline.tracking import run as tracking
from serving.errors import ExpectedError, ServingError
from serving.integrity.statements import Subject
from serving.policy.policy import Policy
from serving.policy.spaces import space_differences
from serving.registry.model_version import ModelVersion, number_of
from serving.registry.registry import fetch, resolve, versions_of
from serving.registry.tracking import check_registry, check_tracking_server


@dataclass(frozen=True)
class Promotion:
    """A promotion or rollback that succeeded.

    Attributes:
        target: The stage or alias.
        version: Its version now.
        replaced: Its version before; None if there was none, `version` if nothing changed.
        verdict: The comparison with the champion; None if none was needed or possible.
        overridden: The objections that `force` overrode.
    """

    target: Target
    version: int
    replaced: int | None
    verdict: Verdict | None = None
    overridden: tuple[str, ...] = ()


@dataclass(frozen=True)
class VersionRow:
    """A row of the table of versions.

    Attributes:
        version: The number of the version.
        stage: Its stage; the string `None`, as in MLflow, if it has none.
        aliases: Its aliases, without the `@`.
        return_mean: The mean return of its last evaluation, or None.
        age_s: Seconds since it was registered.
    """

    version: int
    stage: str
    aliases: tuple[str, ...]
    return_mean: float | None
    age_s: float


def promote(target: Target, version: int, gate: Gate, signer: Signer | None = None) -> Promotion:
    """Assign a version to a stage or alias if it passes the gate, and a second one if there is one.

    The gate guards `Production` and aliases; any version may be assigned to `Staging` and `Archived`. What the gate
    found is recorded in tags of the version. A `signer` signs the version, and the record. A version that is already
    there without such a record, because somebody put it there by hand, is compared with the one that it replaced.

    Raises:
        TrackingServerUnreachable: If the tracking server does not respond within seconds.
        ModelUnknown, VersionMissing: If there is no such version.
        BundleError: If the version could not be served.
        PromotionRefused: If the gate objects; the registry is unchanged.
    """
    check_tracking_server()
    challenger = resolve(f"models:/{target.model}/{version}")
    current = target.current_version() if target.holds_one_version else None
    is_there = current == version or (not target.holds_one_version and challenger.stage == target.name)
    is_guarded = target.is_alias or target.name == "Production"
    if is_there and not (is_guarded and is_unrecorded(challenger, target, signer)):
        _sign(challenger, signer)
        return Promotion(target, version, version)
    if not is_guarded:
        _sign(challenger, signer)
        assign(target, challenger, "promotion", "not guarded")
        return Promotion(target, version, current)
    champion = _previous(target) if is_there else current
    params = {"version": version, "name": target.model, "target": str(target), "champion": champion}
    with tracking.run(f"promote {target.model} {version}", params):
        # The records come before the assignment, after which servers look for the tags.
        verdict, objections, figures = _pass(target, challenger, champion, gate, signer)
        kind, why = ("forced", "; ".join([figures, *objections])) if objections else ("promotion", figures)
        if not is_there:
            assign(target, challenger, kind, why)
        return Promotion(target, version, current, verdict, tuple(objections))


def pass_gate(target: Target, version: int, gate: Gate, signer: Signer | None = None) -> Verdict | None:
    """Compare a version with the champion as `promote` does, record and sign that it passed, and assign nothing.

    Raises:
        As `promote`.
    """
    check_tracking_server()
    challenger, champion = resolve(f"models:/{target.model}/{version}"), target.current_version()
    params = {"version": version, "name": target.model, "target": str(target), "champion": champion}
    with tracking.run(f"gate of {target.model} {version}", params):
        return _pass(target, challenger, champion, gate, signer)[0]


def _previous(target: Target) -> int | None:
    """Return the version that the current one of a target replaced, None if there was none or it is gone."""
    existing = [row.version for row in versions(target.model)]
    return history.previous(history.events(target), existing)


def _pass(
    target: Target, challenger: ModelVersion, champion: int | None, gate: Gate, signer: Signer | None
) -> tuple[Verdict | None, list[str], str]:
    """Return the verdict, the objections and the figures of the gate; log them to the run, record and sign them.

    Raises:
        PromotionRefused: If the gate objects, unless it is forced; nothing is recorded then.
    """
    verdict, objections = _judge(target, challenger, champion, gate)
    figures = verdict.figures if verdict else "not compared"
    if gate.second is not None:
        further, summary = gate.second(challenger, champion)
        objections, figures = [*objections, *further], f"{figures}; {summary}"
    _log(verdict, objections)
    if objections and not gate.force:
        raise PromotionRefused(challenger.version, str(target), objections)
    record_gate(Subject.of(challenger), target, _facts(gate, champion, verdict), signer, passed=not objections)
    _sign(challenger, signer)
    return verdict, objections, figures


def _sign(version: ModelVersion, signer: Signer | None) -> None:
    if signer is not None:
        sign(Subject.of(version), signer)


def rollback(target: Target) -> Promotion:
    """Assign the previous version of a stage or alias to it again.

    Raises:
        TrackingServerUnreachable, ModelUnknown: As `versions`.
        NothingToRollBack: If there is no previous version that still exists.
    """
    version = _previous(target)
    current = _last(history.events(target))
    if version is None:
        raise NothingToRollBack(target.model, str(target), current)
    why = f"replaces version {current}" if current else "there was no version"
    assign(target, resolve(f"models:/{target.model}/{version}"), history.ROLLBACK, why)
    return Promotion(target, version, current)


def timeline(target: Target) -> list[Event]:
    """Return the history of a stage or alias, the oldest event first. Raises as `versions`."""
    check_registry()
    resolve(f"models:/{target.model}/latest")
    return history.events(target)


def versions(name: str) -> list[VersionRow]:
    """Return all versions of a registered model, the newest first.

    Raises:
        TrackingServerUnreachable: If the tracking server does not respond within seconds.
        ModelUnknown: If there is no registered model of this name.
    """
    check_registry()
    resolve(f"models:/{name}/latest")
    aliases = mlflow.MlflowClient().get_registered_model(name).aliases
    return [_row(version, aliases) for version in versions_of(name)]


def _row(version: RegistryVersion, aliases: Mapping[str, str]) -> VersionRow:
    return VersionRow(
        version=int(version.version),
        stage=version.current_stage or "None",
        aliases=tuple(sorted(alias for alias, number in aliases.items() if int(number) == int(version.version))),
        return_mean=number_of(version.tags, "evaluation.return_mean"),
        age_s=time.time() - version.creation_timestamp / 1000,
    )


def _last(events: Sequence[Event]) -> int | None:
    return events[-1].version if events else None


def assign(target: Target, version: ModelVersion, kind: str, why: str, at: str | None = None) -> None:
    """Make a target refer to a version, and record why in the history of all targets that this changes.

    Args:
        target: The stage or alias.
        version: The version.
        kind: The kind of the event.
        why: The reason.
        at: The time of the event, by default now; see `history.recorded`.
    """
    changes = [Change(target, version.version, kind, why)] if target.holds_one_version else []
    left = Target(target.model, version.stage)
    if not target.is_alias and version.stage in STAGES and left != target:
        others = [int(each.version) for each in versions_of(target.model) if each.current_stage == version.stage]
        remaining = max((number for number in others if number != version.version), default=None)
        changes.append(Change(left, remaining, kind, f"version {version.version} moved to {target}"))
    with history.recorded(*changes, at=at):
        target.assign(version.version)


def _judge(
    target: Target, challenger: ModelVersion, champion: int | None, gate: Gate
) -> tuple[Verdict | None, list[str]]:
    """Return the comparison, or None if there cannot be one, and the objections to the challenger.

    Raises:
        BundleError: If the challenger cannot be loaded. `force` does not override this, since it could not be served.
    """
    policy = Policy.load(fetch(challenger))
    champion_policy = None
    if champion is not None:
        try:
            champion_policy = Policy.load(fetch(resolve(f"models:/{target.model}/{champion}")))
        except ServingError as error:
            return None, [f"the champion, version {champion}, cannot be loaded for the comparison: {error}"]
        if differences := space_differences(policy, champion_policy):
            return None, [f"its {role} space is {new}, the champion's is {old}" for role, new, old in differences]
    try:
        environment = environments.of_policy(policy)

        def play(each: Policy) -> Evaluation:
            return evaluation.play(Player.served(each), environment, gate.episodes, gate.seed)

        champions_evaluation = play(champion_policy) if champion_policy else None
        verdict = Verdict(play(policy), champions_evaluation, _threshold(gate, challenger, environment), gate.tolerance)
    except ExpectedError as error:
        return None, [f"it cannot be evaluated here: {error}"]
    return verdict, verdict.objections


def _threshold(gate: Gate, challenger: ModelVersion, environment: Environment) -> float | None:
    if gate.threshold is not None:
        return gate.threshold
    target_return = number_of(challenger.tags, "target_return")
    return environment.reward_threshold if target_return is None else target_return


def _facts(gate: Gate, champion: int | None, verdict: Verdict | None) -> dict[str, Any]:
    """Return the settings and the figures of a comparison, as its record holds them."""
    settings = {"episodes": gate.episodes, "seed": gate.seed, "tolerance": gate.tolerance, "champion": champion}
    if verdict is None:
        return settings
    figures = {
        "threshold": verdict.threshold,
        "return_mean": verdict.challenger.mean,
        "champion_return_mean": verdict.champion.mean if verdict.champion else None,
        "difference_bound": verdict.difference_bound,
    }
    return {**settings, **figures}


def _log(verdict: Verdict | None, objections: list[str]) -> None:
    """Log the comparison to the current run."""
    mlflow.set_tag("objections", "; ".join(objections) or "none")
    if verdict is None:
        return
    for role, result in (("challenger", verdict.challenger), ("champion", verdict.champion)):
        if result is not None:
            mlflow.log_metrics({f"{role}/return_mean": result.mean, f"{role}/return_min": result.minimum})
    if verdict.difference_bound is not None:
        mlflow.log_metric("difference/lower_bound", verdict.difference_bound)
