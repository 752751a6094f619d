"""The commands `train` and `tune`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.commands.options import (
    OptionalFile,
    OptionalFloat,
    config_file_option,
    is_changed,
    is_given,
    one_line_errors,
    training_options,
)
from pipeline.commands.output import print_trained, print_tuned, promote_if_requested
from pipeline.config import TrainConfig
from pipeline.errors import UnreadableConfig

_SEARCH_SPACE = Path(__file__).parents[1] / "tuning" / "search_space.yaml"


@click.command()
@click.option("--resume", metavar="RUN_ID", help="Resume an unfinished run, with its own settings.")
@click.option("--from", "model_uri", metavar="models:/NAME/VERSION", help="Start with the weights of this policy.")
@config_file_option
@click.option("--address", envvar="RAY_ADDRESS", show_envvar=True, help="A running Ray to join.  [default: start one]")
@training_options
@click.pass_context
@one_line_errors
def train(
    context: click.Context,
    resume: str | None,
    model_uri: str | None,
    file: str | None,
    address: str | None,
    **settings: Any,
) -> None:
    """Train PPO until its greedy policy reaches the target and stops improving, and register the best policy.

    The run is tracked in MLflow. Ctrl-C and SIGTERM finish the iteration, for 10 s at most, upload a checkpoint and end
    the run as KILLED, with nothing registered; --resume continues it. A second Ctrl-C ends the command at once.
    """
    given = {name: value for name, value in settings.items() if is_given(context, name)}
    if resume and (model_uri or file or any(is_changed(context, name) for name in settings)):
        raise click.UsageError("--resume takes all settings from the run; omit the other options.")
    if file and len(given) == len(settings):
        # As MLproject does it. MLflow has logged these values, too, so the file cannot override them.
        raise click.UsageError("`mlflow run` passes every setting, so --config changes nothing; use -P NAME=VALUE.")
    config = TrainConfig.of((_read(file) if file else {}) | (given if file else settings))
    from pipeline.rllib.ray_session import RaySession
    from pipeline.training.progress import TrainingProgress
    from pipeline.training.worker_process import WorkerProcess

    with RaySession(address) as ray, WorkerProcess() as worker, TrainingProgress() as progress:
        environment = None
        if not resume:
            from pipeline.environments import contract

            progress.stage(f"Checking {config.env_id}")
            environment = contract.described(config, progress.note)
            ray.start(config)
            if not environment.is_exclusive:
                worker.start(config)
        _check_mlflow(config, config.as_params(), resume, "config.yaml")
        progress.stage("Loading RLlib")
        from pipeline.training import run

        if resume:
            trained = run.resume(resume, progress, ray, worker)
        else:
            trained = run.train(config, progress, ray, worker, model_uri or None, environment)
    print_trained(trained)
    promote_if_requested(trained)


@click.command()
@click.option("--resume", metavar="RUN_ID", help="Resume an unfinished search; trials that have ended are kept.")
@click.option(
    "--search",
    type=OptionalFile(exists=True, dir_okay=False),
    help="YAML file of the search space.  [default: pipeline/tuning/search_space.yaml]",
)
@config_file_option
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
@training_options
@click.pass_context
@one_line_errors
def tune(
    context: click.Context,
    resume: str | None,
    search: str | None,
    file: str | None,
    num_trials: int,
    max_concurrent: int,
    time_budget_s: float | None,
    **settings: Any,
) -> None:
    """Search settings with Ray Tune, each trial in an MLflow child run, and register the policy of the best trial.

    ASHA compares the trials by greedy evaluations and stops those that fall behind. Ctrl-C and SIGTERM upload the
    checkpoints of the running trials and register nothing; --resume continues the search. A second Ctrl-C ends the
    command at once.
    """
    given = {name: value for name, value in settings.items() if is_given(context, name)}
    if resume and (search or file or any(is_changed(context, name) for name in (*settings, "num_trials"))):
        raise click.UsageError(
            "--resume takes the search from the run; give only --max-concurrent and --time-budget-s."
        )
    content = _read(search or str(_SEARCH_SPACE))
    shared = (_read(file) if file else {}) | given
    from pipeline.rllib.ray_session import RaySession
    from pipeline.tuning.search_space import SearchSpace

    space = None if resume else SearchSpace.of(content, shared)
    if space is None:
        _check_mlflow(TrainConfig(), {}, resume, "search.yaml")
    else:
        from pipeline.environments import contract

        contract.described(space.config(1), click.echo, is_search=True)
        _check_mlflow(space.config(1), {**space.shared(), "num_trials": num_trials}, resume, "search.yaml")
    from pipeline.tuning import run
    from pipeline.tuning.progress import TuningTable

    limits = run.SearchLimits(max_concurrent, time_budget_s)
    with RaySession(None) as ray, TuningTable() as progress:
        if space is None:
            tuned = run.resume(str(resume), limits, progress, ray)
        else:
            tuned = run.tune(space, num_trials, limits, progress, ray)
    print_tuned(tuned)
    promote_if_requested(tuned.trained)


def _check_mlflow(config: TrainConfig, params: Mapping[str, Any], resume: str | None, file: str) -> None:
    """Check, before RLlib is loaded, that MLflow can hold what the command will log and register."""
    from pipeline.tracking import preconditions

    if resume:
        preconditions.check_resumable(resume, file)
    else:
        preconditions.check(config.registered_model_name, params)


def _read(file: str) -> dict[str, Any]:
    """Return the content of a YAML file of settings."""
    import yaml

    try:
        content = yaml.safe_load(Path(file).read_text())
    except yaml.YAMLError as error:
        raise UnreadableConfig(file, " ".join(str(error).split())) from error
    if not isinstance(content, dict):
        raise UnreadableConfig(file, "expected one NAME: VALUE per line.")
    return content
