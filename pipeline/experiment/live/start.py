"""Starts an experiment, after everything that can be checked was checked; and stops one."""

import secrets
import time
from dataclasses import dataclass, replace

from pipeline.experience.raw import choose_model, open_experience
from pipeline.experiment.errors import (
    ChallengerIsChampion,
    ExperimentRunning,
    ExperimentUnfinished,
    NoChampion,
    SpacesDiffer,
    StartContested,
    StepsInvalid,
)
from pipeline.experiment.live import run_log, state
from pipeline.experiment.live.ending import end, supersede
from pipeline.experiment.live.lease import SETTLE_S
from pipeline.experiment.live.settings import AUTO, STOPPED, Settings
from pipeline.experiment.live.state import Live
from pipeline.experiment.plan import Baseline, Plan, plan
from pipeline.experiment.recorded import recorded_returns
from pipeline.experiment.statistics.rules import MINIMUM_EPISODES
from pipeline.registry import history
from pipeline.registry.target import Target
from serving.experiments.experiment import Experiment, Step
from serving.policy.policy import Policy
from serving.policy.spaces import space_differences
from serving.registry.model_version import ModelVersion
from serving.registry.registry import fetch, resolve
from serving.registry.tracking import check_tracking_server

_ID_BYTES, _SALT_BYTES = 4, 16
_SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class StartOptions:
    """What the user decides about an experiment.

    Attributes:
        experience: The URI that the servers record to.
        shares: The challenger's shares, one after the other.
        margin: The acceptable loss of mean return, in units of the return.
        margin_of_mean: The same as a part of the champion's mean return, which counts if it is not None.
        alpha: The probability of a false promotion, and that of a false rollback.
        budget: The settled episodes after which an undecided experiment is inconclusive; by default those of the plan.
        expires_s: Seconds after which it ends by itself.
        reward_wait_s: How long after its first decision an episode may report its return.
        record_wait_s: How long it takes until what a server recorded is at the experience URI.
        decide: AUTO or REPORT.
        return_mean: The champion's mean return; by default that of the recorded whole episodes.
        return_std: Their standard deviation, with it.
        default_return: What an unreported episode counts as.
        return_bounds: The smallest and the largest possible return.
        minimum_episodes: The settled episodes that each arm needs before there are bounds.
        step_episodes: The challenger's settled episodes at a share before the next one follows.
        delay_s: How far in the future a share begins.
    """

    experience: str
    shares: tuple[float, ...] = (0.01, 0.1, 0.5)
    margin: float = 0.0
    margin_of_mean: float | None = 0.02
    alpha: float = 0.05
    budget: int | None = None
    expires_s: float = 7 * _SECONDS_PER_DAY
    reward_wait_s: float = 600.0
    record_wait_s: float = 60.0
    decide: str = AUTO
    return_mean: float | None = None
    return_std: float | None = None
    default_return: float | None = None
    return_bounds: tuple[float, float] | None = None
    minimum_episodes: int = MINIMUM_EPISODES
    step_episodes: int = 50
    delay_s: float = 10.0


@dataclass(frozen=True)
class Started:
    """An experiment that has begun, and its plan."""

    live: Live
    baseline: Baseline
    plan: Plan


def check(target: Target, version: int, options: StartOptions) -> tuple[int, ModelVersion, Baseline]:
    """Return the champion, the challenger and the champion's returns, if an experiment can start.

    Raises:
        TrackingServerUnreachable: MLflow does not answer.
        ModelUnknown, VersionMissing: There is no such version.
        NoChampion, ChallengerIsChampion: There are not two versions to compare.
        ExperimentRunning, ExperimentUnfinished: An earlier experiment on the target has not ended.
        BundleError, SpacesDiffer: A version cannot be loaded, or acts on other spaces.
        StepsInvalid: The shares do not rise.
        NoExperience, ModelNotRecorded, NotCompacted, ChampionNotRecorded: The champion's returns are not known.
    """
    rising = list(options.shares) == sorted(set(options.shares))
    if not (options.shares and rising and options.shares[0] > 0 and options.shares[-1] < 1):
        raise StepsInvalid(", ".join(f"{share:g}" for share in options.shares) or "none")
    check_tracking_server()
    challenger = resolve(f"models:/{target.model}/{version}")
    champion = target.current_version()
    if champion is None:
        raise NoChampion(str(target), target.model, version)
    if champion == version:
        raise ChallengerIsChampion(str(target), target.model, version)
    _require_free(target)
    policies = [Policy.load(fetch(each)) for each in (challenger, resolve(f"models:/{target.model}/{champion}"))]
    if differences := space_differences(*policies):
        texts = (f"its {role} space is {new}, the champion's is {old}" for role, new, old in differences)
        raise SpacesDiffer(version, champion, "; ".join(texts))
    return champion, challenger, _baseline(target.model, champion, options)


def _require_free(target: Target) -> None:
    found = state.find(target)
    if found is None or not found.is_open:
        return
    about = str(target), target.model, found.experiment.id
    if not found.is_running:
        raise ExperimentUnfinished(*about, str(found.experiment.decision))
    if found.experiment.champion == target.current_version():
        raise ExperimentRunning(*about, found.experiment.challenger)
    supersede(found)


def _baseline(model: str, champion: int, options: StartOptions) -> Baseline:
    if options.return_mean is None or options.return_std is None:
        return recorded_returns(options.experience, model, champion).baseline
    choose_model(open_experience(options.experience), model)
    return Baseline(options.return_mean, options.return_std)


def start(target: Target, version: int, options: StartOptions) -> Started:
    """Start an experiment: create its run, then write its tag, from which on replicas assign episodes.

    Raises:
        As `check`.
        MarginZero, RulesInvalid: The rules of the decision are out of their range.
        StartContested: Another experiment was started at the same moment.
    """
    champion, challenger, baseline = check(target, version, options)
    planned = _plan(baseline, options)
    history.settle(target)  # a change by hand before the experiment has its event before those of the experiment
    run_id = run_log.create(target, champion, version, challenger.run_id)
    now_s = time.time()
    settings = Settings(
        _absolute(options.experience),
        planned.rules,
        options.shares,
        options.reward_wait_s,
        run_id,
        now_s,
        history.user(),
        record_wait_s=options.record_wait_s,
        step_episodes=options.step_episodes,
        delay_s=options.delay_s,
        decide=options.decide,
    )
    first = Step(now_s + options.delay_s, options.shares[0])
    names = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SALT_BYTES)
    experiment = Experiment(*names, champion, version, (first,), now_s + options.expires_s)
    live = Live(target, experiment, settings)
    run_log.log_settings(live)
    state.write(live)
    now = state.read(target, champion)
    if now is None or now.experiment.id != experiment.id:
        run_log.abandon(run_id)
        raise StartContested(str(target), target.model)
    return Started(live, baseline, planned)


def _absolute(uri: str) -> str:
    """Return the URI of a store, with an absolute path: a controller may run in another directory."""
    store = open_experience(uri)
    return uri if store.local is None else str(store.local)


def _plan(baseline: Baseline, options: StartOptions) -> Plan:
    """Return the plan at the last share, whose rules are those of the options. Raises MarginZero, RulesInvalid."""
    margin = options.margin if options.margin_of_mean is None else options.margin_of_mean * abs(baseline.mean)
    planned = plan(baseline, margin, options.shares[-1], options.alpha, options.minimum_episodes)
    before = sum(options.step_episodes / share for share in options.shares[:-1])
    rules = replace(
        planned.rules,
        budget=options.budget or planned.rules.budget + int(before),
        default_return=options.default_return,
        return_bounds=options.return_bounds,
    )
    return replace(planned, rules=rules)


def stop(target: Target, why: str = "a person stopped it", settle_s: float = SETTLE_S) -> Live:
    """End the running experiment of a target; the champion answers all episodes from then on.

    Raises:
        ExperimentUnknown: No experiment is open on the target.
        ExperimentUnfinished: It is decided already.
    """
    check_tracking_server()
    found = state.find_open(target)
    if not found.is_running:
        raise ExperimentUnfinished(str(target), target.model, found.experiment.id, str(found.experiment.decision))
    return end(found, STOPPED, why, settle_s=settle_s)
