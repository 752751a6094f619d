"""The commands `train` and `tune`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.options import (
    AS_MLFLOW_SPELLS,
    OptionalFloat,
    config_file_option,
    experience_options,
    given,
    one_line_errors,
    registry_option,
    signer_of,
    signing_key_option,
    training_options,
    trust_checkpoint_option,
    tuned_option,
)
from pipeline.commands.output import print_trained, print_tuned, promote_if_requested
from pipeline.config import TrainConfig
from pipeline.learning.settings import SETTINGS as LEARNING_SETTINGS
from pipeline.learning.settings import LearningSettings
from serving.registry.model_uri import ModelUri

if TYPE_CHECKING:
    from pipeline.environments.make import Environment
    from pipeline.learning.recorded import Recorded
    from pipeline.registry.registration import Trained
    from pipeline.training.progress import TrainingProgress
    from pipeline.tuning.search_space import SearchSpace

_SEARCH_SPACE = Path(__file__).parents[1] / "tuning" / "search_space.yaml"


@click.command(context_settings=AS_MLFLOW_SPELLS)
@click.option("--resume", metavar="RUN_ID", help="Resume an unfinished run, with its own settings.")
@click.option("--from", "model_uri", metavar="models:/NAME/VERSION", help="Start with the weights of this policy.")
@trust_checkpoint_option
@signing_key_option
@config_file_option
@tuned_option
@click.option("--address", envvar="RAY_ADDRESS", show_envvar=True, help="A running Ray to join.  [default: start one]")
@registry_option
@experience_options
@training_options
@click.pass_context
@one_line_errors
def train(
    context: click.Context,
    resume: str | None,
    model_uri: str | None,
    file: str | None,
    tuned: bool,  # noqa: FBT001  # click passes it by name
    address: str | None,
    trust_checkpoint: bool,  # noqa: FBT001
    signing_key: str | None,
    **settings: Any,
) -> None:
    """Train PPO until its greedy policy reaches the target and stops improving, and register the best policy.

    With --experience, it learns from recorded episodes instead of with PPO, or before PPO (--then ppo). --from then
    gives the environment, the network and all other settings, too.

    Settings that are given neither by options nor by --config come from the file in pipeline/tuned for the
    environment, or are chosen by its spaces and horizon; they are printed with the reason.

    The run is tracked in MLflow. Ctrl-C and SIGTERM finish the iteration, for 10 s at most, upload a checkpoint and end
    the run as KILLED, with nothing registered; --resume continues it. A second Ctrl-C ends the command at once.
    """
    wanted = given(context, settings)
    if resume and (model_uri or file or wanted):
        raise click.UsageError("--resume takes all settings from the run; omit the other options.")
    learning, wanted = _split(wanted, model_uri)
    wanted = _checked(file, wanted)
    integrity: dict[str, Any] = {"trust_checkpoint": trust_checkpoint, "signer": signer_of(signing_key)}
    trained = _trained(resume, model_uri or None, learning, wanted, address, tuned=tuned, **integrity)
    print_trained(trained)
    promote_if_requested(trained, integrity["signer"])


def _trained(
    resume: str | None,
    model_uri: str | None,
    learning: LearningSettings | None,
    wanted: dict[str, Any],
    address: str | None,
    *,
    tuned: bool,
    **integrity: Any,
) -> "Trained":
    """Return the version of a new training, or of one that is resumed."""
    from pipeline.rllib.ray_session import RaySession
    from pipeline.training.progress import TrainingProgress
    from pipeline.training.worker_process import WorkerProcess

    with RaySession(address) as ray, WorkerProcess() as worker, TrainingProgress() as progress:
        config, environment, recorded = TrainConfig(), None, None
        if not resume:
            wanted = {**_inherited(learning, model_uri, progress), **wanted}
            config, environment = _prepared(wanted, progress, tuned=tuned)
            recorded = _recorded(learning, config, environment, progress)
            ray.start(config)
            if not environment.is_exclusive:
                worker.start(config)
        _check_mlflow(config, config.as_params() | (learning.as_params() if learning else {}), resume, "config.yaml")
        progress.stage("Loading RLlib")
        from pipeline.learning.course import course_of
        from pipeline.training import run

        integrity["course"] = course_of(resume, learning, recorded)
        if resume:
            return run.resume(resume, progress, ray, worker, **integrity)
        origin = None if learning and learning.scratch else model_uri
        return run.train(config, progress, ray, worker, origin, environment, **integrity)


@click.command(context_settings=AS_MLFLOW_SPELLS)
@click.option("--resume", metavar="RUN_ID", help="Resume an unfinished search; trials that have ended are kept.")
@trust_checkpoint_option
@signing_key_option
@click.option(
    "--search",
    type=click.Path(exists=True, dir_okay=False),
    help="YAML file of the search space.  [default: pipeline/tuning/search_space.yaml]",
)
@config_file_option
@tuned_option
@click.option(
    "--num-trials", type=click.IntRange(1), default=20, show_default=True, help="Trials; the first draws nothing."
)
@click.option(
    "--max-concurrent",
    type=click.IntRange(0),
    default=0,
    help="Trials at once.  [default: one per available CPU]",
)
@click.option(
    "--time-budget-s", type=OptionalFloat(), default="auto", help="Seconds for all trials.  [default: no limit]"
)
@registry_option
@training_options
@click.pass_context
@one_line_errors
def tune(
    context: click.Context,
    resume: str | None,
    search: str | None,
    file: str | None,
    tuned: bool,  # noqa: FBT001  # click passes it by name
    num_trials: int,
    max_concurrent: int,
    time_budget_s: float | None,
    trust_checkpoint: bool,  # noqa: FBT001
    signing_key: str | None,
    **settings: Any,
) -> None:
    """Search settings with Ray Tune, each trial in an MLflow child run, and register the policy of the best trial.

    ASHA compares the trials by greedy evaluations and stops those that fall behind. Ctrl-C and SIGTERM upload the
    checkpoints of the running trials and register nothing; --resume continues the search. A second Ctrl-C ends the
    command at once.
    """
    wanted = given(context, settings)
    if resume and (search or file or given(context, {**settings, "num_trials": num_trials})):
        raise click.UsageError(
            "--resume takes the search from the run; give only --max-concurrent and --time-budget-s."
        )
    signer = signer_of(signing_key)
    space = None if resume else _search_space(search, file, wanted, tuned=tuned)
    if space is None:
        _check_mlflow(TrainConfig(), {}, resume, "search.yaml")
    else:
        from pipeline.environments import contract

        contract.described(space.config(1), click.echo, is_search=True)
        _check_mlflow(space.config(1), {**space.shared(), "num_trials": num_trials}, resume, "search.yaml")
    from pipeline.rllib.ray_session import RaySession
    from pipeline.tuning import run
    from pipeline.tuning.progress import TuningTable

    limits = run.SearchLimits(max_concurrent, time_budget_s)
    with RaySession(None) as ray, TuningTable() as progress:
        if space is None:
            found = run.resume(str(resume), limits, progress, ray, trust_checkpoint=trust_checkpoint, signer=signer)
        else:
            found = run.tune(space, num_trials, limits, progress, ray, signer=signer)
    print_tuned(found)
    promote_if_requested(found.trained, signer)


def _split(wanted: Mapping[str, Any], model_uri: str | None) -> tuple[LearningSettings | None, dict[str, Any]]:
    """Return the settings of learning from experience, None without --experience, and those of the training."""
    names = {each.name for each in LEARNING_SETTINGS}
    learning = {name: value for name, value in wanted.items() if name in names}
    others = {name: value for name, value in wanted.items() if name not in names}
    if not learning.get("experience"):
        if given_without := [name for name in learning if name != "experience"]:
            option = "--" + given_without[0].replace("_", "-")
            raise click.UsageError(f"{option} needs --experience, the URI that a server records to.")
        return None, others
    if model_uri and learning.get("experience_model", "auto") == "auto":
        learning["experience_model"] = ModelUri.parse(model_uri).name
    return LearningSettings(**learning), others


def _inherited(
    learning: LearningSettings | None, model_uri: str | None, progress: "TrainingProgress"
) -> dict[str, Any]:
    """Return the settings of the policy of `--from` if the training learns from experience."""
    if learning is None or not model_uri:
        return {}
    from pipeline.learning.origin import settings_of

    progress.note(f"Settings: those of {model_uri}")
    return settings_of(model_uri)


def _recorded(
    learning: LearningSettings | None, config: TrainConfig, environment: "Environment", progress: "TrainingProgress"
) -> "Recorded | None":
    """Return the episodes to learn from, which are checked before anything heavy starts."""
    if learning is None:
        return None
    from pipeline.learning.recorded import Recorded

    learning.check(config)
    progress.stage("Reading the experience")
    return Recorded.read(learning, environment, progress.note)


def _checked(file: str | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a file, overridden by those of the options, with the values of their types."""
    from pipeline.settings import choice
    from pipeline.settings.files import read

    return choice.checked({**(read(file) if file else {}), **wanted})


def _prepared(
    wanted: Mapping[str, Any], progress: "TrainingProgress", *, tuned: bool
) -> tuple[TrainConfig, "Environment"]:
    """Return all settings of a training, and its environment, which is checked. Shows which settings are chosen."""
    from pipeline.environments import contract
    from pipeline.settings import by_machine, choice

    progress.stage(f"Checking {wanted.get('env_id', TrainConfig.env_id)}")
    chosen = choice.chosen_for(wanted, tuned=tuned)
    config = TrainConfig(**{**chosen.settings, **wanted})
    environment = contract.described(config, progress.note)
    config, reasons = by_machine.chosen(config, environment, wanted)
    for note in (*chosen.notes, *reasons):
        progress.note(note)
    return config, environment


def _check_mlflow(config: TrainConfig, params: Mapping[str, Any], resume: str | None, file: str) -> None:
    """Check, before RLlib is loaded, that MLflow can hold what the command will log and register."""
    from pipeline.tracking import preconditions

    if resume:
        preconditions.check_resumable(resume, file)
    else:
        preconditions.check(config.registered_model_name, params)


def _search_space(search: str | None, file: str | None, wanted: dict[str, Any], *, tuned: bool) -> "SearchSpace":
    """Return the search space of a file or the shipped one, over the settings for its environment, with their notes.

    The settings of the options override those of the configuration `file`.
    """
    from pipeline.settings import choice
    from pipeline.settings.files import read
    from pipeline.tuning.search_space import SearchSpace

    content = read(search or _SEARCH_SPACE)
    wanted = (read(file) if file else {}) | wanted
    if search is None and wanted.get("env_id", TrainConfig.env_id) != content["settings"]["env_id"]:
        content["settings"] = {}  # its budget is that of another environment
    notes: list[str] = []

    def chosen(settings: Mapping[str, Any]) -> Mapping[str, Any]:
        found = choice.chosen_for(choice.checked(settings), tuned=tuned)
        notes.extend(found.notes)
        return found.settings

    space = SearchSpace.of(content, wanted, chosen)
    for note in notes:
        click.echo(note)
    return space
