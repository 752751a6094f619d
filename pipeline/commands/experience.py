"""The commands `experience compact`, `experience stats`, `experience audit` and `experience forget`."""

import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import click

from pipeline.commands.options import InOrder, one_line_errors

uri_argument = click.argument("uri")
model_option = click.option("--model", metavar="NAME", help="Registered model.  [default: the only one that there is]")


def store_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Show errors in one line as `one_line_errors` does, those of S3 with what to check."""

    @one_line_errors
    @functools.wraps(command)
    def wrapped(*args: Any, uri: str, **kwargs: Any) -> None:
        from pipeline.experience.raw import s3_explained

        with s3_explained(uri):
            command(*args, uri=uri, **kwargs)

    return wrapped


@click.group(cls=InOrder)
def experience() -> None:
    """Build, describe, check, export and delete episodes from what servers recorded.

    URI is the directory or the S3 prefix that a server records to (its --experience-uri).
    """


@experience.command()
@uri_argument
@model_option
@click.option(
    "--reward-wait-s",
    type=click.FloatRange(0),
    default=3600.0,
    show_default=True,
    help="Seconds without an event after which an episode whose end nobody reported counts as finished.",
)
@click.option(
    "--default-reward", type=float, default=0.0, show_default=True, help="Reward of a step that nobody reported."
)
@click.option("--keep-days", type=click.IntRange(1), help="Delete raw files of earlier days.  [default: keep all]")
@click.option(
    "--scratch",
    metavar="DIRECTORY",
    type=click.Path(exists=True, file_okay=False),
    help="Where temporary files go.  [default: TMPDIR]",
)
@store_errors
def compact(uri: str, model: str | None, **options: Any) -> None:
    """Join decisions and feedback into whole episodes, which stats, exports and training read.

    Builds all episodes anew from the raw files each time, so what arrived late is in its place, and replaces the
    earlier ones when it is done. The raw files stay, unless --keep-days deletes them.
    """
    from pipeline.commands.experience_output import print_compaction
    from pipeline.experience.compaction.run import CompactOptions, compact
    from pipeline.experience.progress import StageProgress
    from pipeline.experience.raw import choose_model, open_experience

    store = open_experience(uri)
    chosen = choose_model(store, model)
    with StageProgress() as progress:
        done = compact(store, chosen, CompactOptions(**options), progress)
    print_compaction(uri, done)


@experience.command()
@uri_argument
@model_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_errors
def stats(uri: str, model: str | None, *, as_json: bool) -> None:
    """Show what is recorded, by version: episodes, returns, lengths, rewards, audit and losses.

    Episodes are as of the last compaction; counts of decisions and losses are up to date. An episode belongs to the
    version of its first decision.
    """
    from pipeline.commands.experience_output import print_stats
    from pipeline.experience.raw import choose_model, open_experience
    from pipeline.experience.stats import stats

    store = open_experience(uri)
    found = stats(store, choose_model(store, model))
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        print_stats(uri, found)


@experience.command()
@uri_argument
@model_option
@click.option("--limit", type=click.IntRange(0), default=10, show_default=True, help="Differing decisions to list.")
@store_errors
def audit(uri: str, model: str | None, limit: int) -> None:
    """Show whether the bundles compute the actions that were served, as the converter found.

    The exit status is 3 if any differs. Decisions are unchecked if their observations were not recorded or their
    bundle was gone.
    """
    from pipeline.commands.experience_output import print_audit
    from pipeline.experience.audit import audit
    from pipeline.experience.raw import choose_model, open_experience
    from serving.experience.tables import DIFFERS

    store = open_experience(uri)
    report = audit(store, choose_model(store, model), limit)
    print_audit(report)
    if report.count(DIFFERS):
        sys.exit(3)


@experience.command()
@uri_argument
@click.argument("episodes", nargs=-1, required=True, metavar="EPISODE...")
@click.option(
    "--key-file",
    metavar="FILE",
    help="File with the secret that the server hashes the names of episodes with (its --experience-key-file).",
)
@click.option("--model", metavar="NAME", help="Registered model.  [default: all]")
@store_errors
def forget(uri: str, episodes: tuple[str, ...], key_file: str | None, model: str | None) -> None:
    """Remove everything that is recorded of EPISODE..., the names that clients gave to episodes.

    Rows go from raw files, whole episodes and their summary, which get new digests. Segments that a server's node has
    not converted yet are not reached: run the command again after a minute. It can be repeated, also after an
    interruption.
    """
    from pipeline.commands.experience_output import print_forgotten
    from pipeline.experience.forgetting import forget
    from pipeline.experience.progress import StageProgress
    from pipeline.experience.raw import choose_model, models_of, open_experience
    from serving.experience.episodes import EpisodeHasher
    from serving.experience.start import read_key

    hasher = EpisodeHasher(read_key(key_file) if key_file else b"")
    store = open_experience(uri)
    models = models_of(store) if model is None else [choose_model(store, model)]
    with StageProgress() as progress:
        done = forget(store, models, [hasher(name) for name in episodes], progress)
    print_forgotten(episodes, done, has_key=key_file is not None)
