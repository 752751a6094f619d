"""The commands: options -> configuration -> one call -> output."""

from collections.abc import Callable
from dataclasses import Field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from pipeline.config import SETTINGS, TrainConfig
from pipeline.errors import Interrupted, PipelineError, UnreadableConfig
from serving.commands.console import domain_errors

if TYPE_CHECKING:
    from pipeline.registry.promotion import Gate, Promotion
    from pipeline.registry.registration import Trained
    from pipeline.registry.target import Slot
    from pipeline.tuning.run import Tuned

Command = TypeVar("Command", bound=Callable[..., Any])

one_line_errors = domain_errors(PipelineError, Interrupted)

name_option = click.option(
    "--name", default=TrainConfig.registered_model_name, show_default=True, help="Registered model."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Train policies, judge them, and decide in MLflow's registry which of them is served."""


def slot_options(*stages: str) -> Callable[[Command], Command]:
    """`--stage` and `--alias`; the alias wins."""

    def decorate(command: Command) -> Command:
        alias = click.option("--alias", help="An alias instead of a stage, as champion.")
        stage = click.option(
            "--stage", type=click.Choice(stages), default=stages[0], show_default=True, help="Which stage."
        )
        return stage(alias(command))

    return decorate


class _OptionalFloat(click.ParamType["float | None"]):
    """A number, or `auto` for None: MLproject cannot leave a parameter out."""

    name = "float|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        return None if value == "auto" else click.FLOAT.convert(value, param, ctx)


class _OptionalFile(click.Path):
    """A file, or nothing for None: MLproject cannot leave a parameter out."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == "" else super().convert(value, param, ctx)


def training_options(command: Command) -> Command:
    """An option for each field of TrainConfig."""
    for setting in reversed(SETTINGS):
        command = _option(setting)(command)
    return command


def _option(setting: "Field[Any]") -> Callable[[Command], Command]:
    optional, switch = setting.default is None, isinstance(setting.default, bool)
    if "repeatable" in setting.metadata:
        return _repeatable(setting)
    return click.option(
        "--" + setting.name.strip("_").replace("_", "-"),
        setting.name,
        type=_OptionalFloat() if optional else type(setting.default),
        default="auto" if optional else setting.default,
        # MLproject hands every parameter over with a value; a person writes the switch alone.
        is_flag=False,
        flag_value=True if switch else None,
        show_default=True,
        help=setting.metadata["help"],
    )


def _repeatable(setting: "Field[Any]") -> Callable[[Command], Command]:
    """An option that may be given several times; their values are joined by commas."""
    return click.option(
        "--" + setting.name,
        setting.name,
        multiple=True,
        default=[setting.default],
        callback=lambda _context, _option, values: ",".join(values),
        show_default=setting.default,
        help=setting.metadata["help"],
    )


@cli.command()
@click.option("--resume", metavar="RUN_ID", help="Go on with a run that did not finish, with its own settings.")
@click.option("--from", "model_uri", metavar="MODEL_URI", help="Start with a registered policy, as models:/NAME/1.")
@click.option(
    "--config", "file", type=click.Path(exists=True, dir_okay=False), help="Settings in YAML; options override them."
)
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
    """Train PPO until its greedy policy reaches the target and gets no better, and register the best one.

    The run is tracked in MLflow while it goes on. Ctrl-C and SIGTERM finish the iteration, upload a checkpoint and end
    the run KILLED, with nothing registered; --resume goes on with it. A second Ctrl-C ends it at once.
    """
    given = {name: value for name, value in settings.items() if _is_given(context, name)}
    if resume and (model_uri or file or any(_is_changed(context, name) for name in settings)):
        raise click.UsageError("--resume takes every setting from the run; leave the other options out.")
    config = TrainConfig.of((_read(file) if file else {}) | (given if file else settings))
    from pipeline.rllib.ray_session import RaySession
    from pipeline.signals import interruptible
    from pipeline.training.progress import TrainingProgress
    from pipeline.training.worker_process import SideProcess

    with interruptible():
        with RaySession(address) as ray, SideProcess() as side, TrainingProgress() as progress:
            if not resume:
                ray.begin(config)
                side.begin(config)
            progress.stage("Loading RLlib")
            from pipeline.training import run as training_run

            if resume:
                trained = training_run.resume(resume, progress, ray, side)
            else:
                trained = training_run.train(config, progress, ray, side, model_uri or None)
        _say_what_was_trained(trained)
        _promote_if_asked(trained)


@cli.command()
@click.option("--resume", metavar="RUN_ID", help="Go on with a search that did not finish; trials that ended stay.")
@click.option(
    "--search",
    type=_OptionalFile(exists=True, dir_okay=False),
    help="What to search, in YAML.  [default: pipeline/tuning/search_space.yaml]",
)
@click.option(
    "--config",
    "file",
    type=click.Path(exists=True, dir_okay=False),
    help="What trials share, in YAML; options override.",
)
@click.option("--num-trials", type=click.IntRange(1), default=20, show_default=True, help="The first draws nothing.")
@click.option("--max-concurrent", type=click.IntRange(0), default=0, help="Trials at once.  [default: one per core]")
@click.option(
    "--time-budget-s", type=_OptionalFloat(), default="auto", help="Seconds for all trials.  [default: no limit]"
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
    """Search settings with Ray Tune, each trial an MLflow run below one, and register the best trial's policy.

    Trials are judged by greedy evaluations; ASHA ends those that fall behind. Ctrl-C and SIGTERM end the trials with
    their checkpoints uploaded, and register nothing; --resume goes on. A second Ctrl-C ends it at once.
    """
    given = {name: value for name, value in settings.items() if _is_given(context, name)}
    if resume and (search or file or any(_is_changed(context, name) for name in (*settings, "num_trials"))):
        raise click.UsageError("--resume takes the search from the run; leave out all but the limits of this machine.")
    content = _read(search or str(Path(__file__).parent / "tuning" / "search_space.yaml"))
    shared = (_read(file) if file else {}) | given
    from pipeline.signals import interruptible

    with interruptible():
        from pipeline.rllib.ray_session import RaySession
        from pipeline.tuning.search_space import SearchSpace

        space = None if resume else SearchSpace.of(content, shared)
        from pipeline.tuning import run as tuning_run
        from pipeline.tuning.progress import TuningTable

        limits = tuning_run.Limits(max_concurrent, time_budget_s)
        with RaySession(None) as ray, TuningTable() as progress:
            if space is None:
                tuned = tuning_run.resume(str(resume), limits, progress, ray)
            else:
                tuned = tuning_run.tune(space, num_trials, limits, progress, ray)
        _say_what_was_found(tuned)
        _promote_if_asked(tuned.trained)


def _say_what_was_found(tuned: "Tuned") -> None:
    import yaml

    _say_what_was_trained(tuned.trained)
    click.echo(
        f"\nBest: trial {tuned.trial.number}. Its settings, also best.yaml of the run, for train --config FILE:\n"
    )
    click.echo(yaml.safe_dump(dict(tuned.settings), sort_keys=False))


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) != ParameterSource.DEFAULT


def _is_changed(context: click.Context, name: str) -> bool:
    """Whether an option has another value than its default, which MLproject hands over even if nobody gave it."""
    if not _is_given(context, name) or not context.params[name]:
        return False
    (option,) = [each for each in context.command.params if each.name == name]
    return bool(context.params[name] != option.type_cast_value(context, option.get_default(context)))


def _read(file: str) -> dict[str, Any]:
    import yaml

    try:
        read = yaml.safe_load(Path(file).read_text())
    except yaml.YAMLError as error:
        raise UnreadableConfig(file, " ".join(str(error).split())) from error
    if not isinstance(read, dict):
        raise UnreadableConfig(file, "expected settings, one NAME: VALUE per line.")
    return read


def _say_what_was_trained(trained: "Trained") -> None:
    uri = f"models:/{trained.name}/{trained.version}"
    click.echo(f"\nRegistered {uri} (run {trained.run_id}): greedy return {trained.evaluation}")
    if not trained.solved:
        click.secho(f"It did not reach the target of {trained.target_return:g} within the budget.", fg="yellow")
    click.echo(f"Next: python -m pipeline promote {trained.version}{_name_argument(trained.name)}")


@cli.command()
@click.argument("model_uri")
@click.option("--episodes", type=click.IntRange(1), default=100, show_default=True, help="Greedy episodes to play.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Episode i is reset with seed + i.")
@one_line_errors
def evaluate(model_uri: str, episodes: int, seed: int) -> None:
    """Play greedy episodes with MODEL_URI, as models:/cartpole-ppo/1, and record them in MLflow."""
    from pipeline.signals import interruptible

    with interruptible():
        from pipeline.registry.evaluate import evaluate

        evaluated = evaluate(model_uri, episodes, seed)
    click.echo(f"models:/{evaluated.name}/{evaluated.version}: greedy return {evaluated.evaluation}")
    click.echo(f"Recorded in run {evaluated.run_id} and on the version.")


@cli.command()
@click.argument("model_uri")
@click.option(
    "--url", help="A server of this very version, to be asked as well, as http://127.0.0.1:8000/cartpole-ppo."
)
@click.option(
    "--auth-token-file",
    "token_file",
    envvar="SERVING_AUTH_TOKEN_FILE",
    show_envvar=True,
    type=click.Path(),
    help="File with the bearer token that the server asks for.",
)
@click.option("--observations", type=click.IntRange(20), default=1000, show_default=True, help="How many to ask about.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the observations.")
@one_line_errors
def verify(model_uri: str, url: str | None, token_file: str | None, observations: int, seed: int) -> None:
    """Check that MODEL_URI, as models:/cartpole-ppo/1, acts as RLlib does with the version's checkpoint.

    On observations from rollouts and from the corners of their space: greedily, singly and in batches, and sampled, by
    tests of whether both have one distribution. It exits with status 1 if anything differs.
    """
    from pipeline.signals import interruptible

    with interruptible():
        from pipeline.tables import checks_table
        from pipeline.verification.errors import VerificationFailed
        from pipeline.verification.suite import verify
        from serving.replica.auth import read_token

        checks = verify(model_uri, observations, seed, url, token_file and read_token(token_file))
        checks_table(checks)
        failures = [f"{each.name}: {each.failure}" for each in checks if each.failure is not None]
        if failures:
            raise VerificationFailed(model_uri, failures)


@cli.command()
@click.argument("version", type=click.IntRange(1))
@slot_options("Production", "Staging", "Archived")
@name_option
@click.option("--episodes", type=click.IntRange(2), default=100, show_default=True, help="Episodes that both play.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Episode i is reset with seed + i.")
@click.option(
    "--threshold",
    type=_OptionalFloat(),
    default="auto",
    show_default=True,
    help="Mean return to reach; auto is what it was trained to reach, else the environment's own.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0.02,
    show_default=True,
    help="Fraction of the champion's mean return that may be lost.",
)
@click.option("--force", is_flag=True, help="Promote in spite of objections; they are recorded.")
@one_line_errors
def promote(version: int, stage: str, alias: str | None, name: str, **gate: Any) -> None:
    """Put VERSION into a stage or behind an alias, if it is good enough, and archive what stood there.

    For Production and aliases it plays the same seeded episodes as the champion, and must reach the threshold and be
    not worse: the lower 95% bound of the mean difference may not lie below minus the tolerance.
    """
    from pipeline.signals import interruptible

    with interruptible():
        from pipeline.registry.promotion import Gate
        from pipeline.registry.target import Slot

        _promote(Slot.of(name, stage, alias), version, Gate(**gate))


@cli.command()
@slot_options("Production", "Staging")
@name_option
@one_line_errors
def rollback(stage: str, alias: str | None, name: str) -> None:
    """Put back the version that stood in a stage or behind an alias before; twice goes two back."""
    from pipeline.registry.promotion import rollback
    from pipeline.registry.target import Slot

    _say_what_stands(rollback(Slot.of(name, stage, alias)))


@cli.command()
@slot_options("Production", "Staging")
@name_option
@one_line_errors
def history(stage: str, alias: str | None, name: str) -> None:
    """List what stood in a stage or behind an alias: when, by whom and why."""
    from pipeline.registry.promotion import timeline
    from pipeline.registry.target import Slot
    from pipeline.tables import timeline_table

    timeline_table(timeline(Slot.of(name, stage, alias)))


@cli.command()
@name_option
@one_line_errors
def versions(name: str) -> None:
    """List the versions of a registered model."""
    from pipeline.registry.promotion import versions
    from pipeline.tables import versions_table

    versions_table(versions(name))


@cli.command()
@click.option("--mlflow-port", default=5000, show_default=True, help="Of the MLflow server.")
@click.option("--serving-port", default=8000, show_default=True, help="Of the policy server.")
@click.option("--episodes", default=100, show_default=True, help="Episodes to play through HTTP.")
@one_line_errors
def journey(mlflow_port: int, serving_port: int, episodes: int) -> None:
    """Everything on this machine: MLflow, a promoted policy, a server, and a first query (`make run`)."""
    from pipeline.journey import journey
    from pipeline.signals import interruptible

    with interruptible():
        journey(mlflow_port, serving_port, episodes)


def _promote(slot: "Slot", version: int, gate: "Gate") -> None:
    from pipeline.registry.promotion import promote
    from pipeline.tables import verdict_table

    promotion = promote(slot, version, gate)
    if promotion.verdict is not None:
        verdict_table(promotion.verdict)
    for objection in promotion.overridden:
        click.secho(f"Forced, although {objection}", fg="yellow")
    _say_what_stands(promotion)


def _promote_if_asked(trained: "Trained") -> None:
    if trained.promote:
        from pipeline.registry.promotion import Gate
        from pipeline.registry.target import Slot

        _promote(Slot(trained.name, "Production"), trained.version, Gate())


def _say_what_stands(promotion: "Promotion") -> None:
    where = f"{promotion.slot} of '{promotion.slot.model}'"
    if promotion.replaced == promotion.version:
        click.echo(f"Version {promotion.version} stands in {where} already.")
        return
    replaced = "" if promotion.replaced is None else f", in place of version {promotion.replaced}"
    click.echo(f"Version {promotion.version} stands in {where}{replaced}.")
    click.echo(
        f"Servers of {promotion.slot.uri} take it up; start one: python -m serving run --model-uri {promotion.slot.uri}"
    )


def _name_argument(name: str) -> str:
    return "" if name == TrainConfig.registered_model_name else f" --name {name}"
