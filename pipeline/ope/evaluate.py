"""Judges a registered version from recorded experience, and records the answer in MLflow."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.experience.exports.spaces import PolicySpaces
from pipeline.experience.progress import StageProgress
from pipeline.experience.raw import choose_model, open_experience
from pipeline.experience.whole_episodes import WholeEpisodes
from pipeline.ope.errors import OtherModel, OtherSpaces
from pipeline.ope.judgement import Answer, Judge, Settings, Value
from pipeline.ope.reading import LeftOut, Reader
from pipeline.ope.report import Evaluated, headline, record, record_in_active_run
from pipeline.ope.statistics.distributions import ActionDistribution
from pipeline.ope.statistics.fitted_q import SEEDS
from pipeline.ope.target import Target
from pipeline.tracking import run as tracking
from serving.errors import ExpectedError
from serving.policy.policy import Policy
from serving.policy.spaces import space_to_json
from serving.registry.model_version import ModelVersion
from serving.registry.registry import fetch, resolve
from serving.registry.tracking import check_tracking_server

NOT_WORSE, BETTER = "not-worse", "better"
"""What a promotion may demand."""


@dataclass(frozen=True)
class Request:
    """What to judge a version from, and how.

    Attributes:
        uri: The experience URI.
        settings: The settings of the evaluation.
        sampled: Whether the actions of both versions are sampled; else they are greedy.
        unreported: What becomes of episodes with unreported rewards: `keep`, `drop`, or None for an error.
        most: The most episodes to read.
    """

    uri: str
    settings: Settings = field(default_factory=Settings)
    sampled: bool = False
    unreported: str | None = None
    most: int = 10_000


def evaluate(model_uri: str, against: str | None, request: Request, progress: StageProgress) -> tuple[Evaluated, str]:
    """Judge a version in an MLflow run of its own; return the answer and the id of the run.

    Raises:
        OtherModel: `against` belongs to another registered model.
        ServingError: A version cannot be resolved, fetched, verified or loaded.
        PipelineError: As `judge`.
    """
    check_tracking_server()
    version = resolve(model_uri)
    other = resolve(against) if against else None
    choose_model(open_experience(request.uri), version.name)  # a wrong URI leaves no failed run behind
    params = {
        "model_uri": model_uri,
        "against": against,
        "target": "sampled" if request.sampled else "greedy",
        "gamma": request.settings.gamma,
        "alpha": request.settings.alpha,
    }
    with tracking.run(f"ope {version.name} {version.version}", params) as run_id:
        evaluated = judge(version, other, request, progress)
        record(run_id, evaluated)
    return evaluated, run_id


def judge(version: ModelVersion, against: ModelVersion | None, request: Request, progress: StageProgress) -> Evaluated:
    """Judge a version against another one, or against the recorded behaviour.

    Raises:
        OtherModel: `against` belongs to another registered model.
        OtherSpaces: A version has other spaces than those that were recorded.
        RecurrentTarget, DistributionUnknown: The actions of a version cannot be computed.
        NoExperience, ModelNotRecorded, NotCompacted: There are no whole episodes of the model.
        ObservationsNotRecorded, RewardsUnreported, NoUsableEpisodes: As `Reader.read`.
        StoreUnavailable, ExperienceDamaged, EpisodesReplaced: The episodes cannot be read.
    """
    if against is not None and against.name != version.name:
        raise OtherModel(version.name, against.name)
    store = open_experience(request.uri)
    whole = WholeEpisodes.open(store, choose_model(store, version.name))
    targets = [_target(each, whole, sampled=request.sampled) for each in (version, against) if each is not None]
    left_out = LeftOut()
    progress.stage("read the episodes", 1)
    logs = Reader(whole, targets[0].policy, request.most, request.unreported).read(left_out)
    progress.advance()
    judge = Judge(logs, ActionDistribution(targets[0].policy.action_space), request.settings, progress.advance)
    values = [_value(judge, each, progress) for each in targets]
    other = targets[1] if len(targets) > 1 else None
    return Evaluated(targets[0], other, judge.judge(*values), logs, left_out, whole)


def objections(
    version: ModelVersion, champion: int | None, request: Request, demand: str, progress: StageProgress
) -> tuple[list[str], str]:
    """Return what speaks against a promotion beside a champion, and a summary; record it in the active run.

    That the episodes cannot be read, or the version not be judged from them, speaks against it too.
    """
    try:
        other = None if champion is None else resolve(f"models:/{version.name}/{champion}")
        evaluated = judge(version, other, request, progress)
    except ExpectedError as error:
        reason = str(error).removesuffix(".")
        return [f"it cannot be judged from recorded episodes: {reason}"], "recorded episodes: not judged"
    record_in_active_run(evaluated)
    judgement = evaluated.judgement
    summary = f"recorded episodes: {headline(judgement)}"
    if judgement.answer == Answer.WORSE or (demand == BETTER and judgement.answer != Answer.BETTER):
        return [_objection(judgement.answer, judgement.reasons)], summary
    return [], summary


def _objection(answer: Answer, reasons: Sequence[str]) -> str:
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return f"the answer from recorded episodes is '{answer}'{why}"


def _target(version: ModelVersion, whole: WholeEpisodes, *, sampled: bool) -> Target:
    """Return a version as a target. Raises OtherSpaces, RecurrentTarget, DistributionUnknown."""
    target = Target(version.name, version.version, Policy.load(fetch(version)), sampled)
    recorded = PolicySpaces.of_version(whole.model, max(whole.layout.versions))
    pairs = (
        ("observation", target.policy.observation_space, recorded.observation),
        ("action", target.policy.action_space, recorded.action),
    )
    for role, own, theirs in pairs:
        if space_to_json(own) != space_to_json(theirs):
            raise OtherSpaces(version.name, version.version, role, str(own), str(theirs))
    target.check()
    return target


def _value(judge: Judge, target: Target, progress: StageProgress) -> Value:
    progress.stage(f"run version {target.version}", len(judge.logs.states[0]))
    actions = target.actions(judge.logs, progress.advance)
    progress.stage(f"fit models of version {target.version}", SEEDS)
    return judge.value(actions, has_weights=target.has_weights)
