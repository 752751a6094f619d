"""Prints the results of the commands of experience."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pipeline.experience.audit import AuditReport
    from pipeline.experience.compaction.run import Compaction
    from pipeline.experience.forgetting import Forgotten
    from pipeline.experience.stats import Stats, VersionStats

_LEFT_OUT = {
    "pending_episodes": "episodes that may go on: they are left for the next compaction",
    "pending_decisions": "decisions of these episodes",
    "without_episode": "decisions whose request named no episode",
    "duplicates": "decisions that were repeated: the latest one of each step stays",
    "after_end": "decisions after the length that the client reported",
    "unknown_feedback": "feedback events for episodes without decisions",
    "unconverted_files": "files of segments whose conversion has not ended",
    "damaged_files": "damaged files",
}
_SHOWN_FILES = 3


def print_compaction(uri: str, done: "Compaction") -> None:
    """Print what a compaction wrote and left out, and the next command."""
    content = done.content
    if done.deleted:
        click.echo(f"Deleted {done.deleted:,} raw files of earlier days.")
    click.echo(
        f"'{content['model']}': {_count(content['episodes'], 'whole episode')} with "
        f"{_count(content['decisions'], 'decision')}, "
        f"in {done.seconds:.1f} s. Digest {content['digest']}."
    )
    _print_left_out(content["left_out"])
    if done.damaged:
        more = f" and {len(done.damaged) - _SHOWN_FILES} more" if len(done.damaged) > _SHOWN_FILES else ""
        click.secho(
            f"Left out, because they are gone or not as their manifests say: {', '.join(done.damaged[:_SHOWN_FILES])}"
            f"{more}. Restore them from a copy, and compact again.",
            fg="yellow",
        )
    if len(content["layouts"]) > 1:
        parts = [", ".join(map(str, each["versions"])) for each in content["layouts"]]
        click.echo(
            f"Versions with other arrays lie in other files ({'; '.join(parts)}); readers take the newest version's."
        )
    click.echo(f"Next: python -m pipeline experience stats {shlex.quote(uri)}{_model(content['model'])}")


def _print_left_out(counts: dict[str, int]) -> None:
    for name, about in _LEFT_OUT.items():
        if counts.get(name) and name != "damaged_files":
            click.echo(f"Left out: {counts[name]:,} {about}.")


def _model(name: str) -> str:
    return f" --model {shlex.quote(name)}"


def print_stats(uri: str, found: "Stats") -> None:
    """Print what is recorded of a model."""
    command = f"python -m pipeline experience compact {shlex.quote(uri)}{_model(found.model)}"
    if found.digest is None:
        click.echo(f"'{found.model}': {_count(found.segments, 'segment')}, not compacted yet.")
    else:
        at = (found.compacted_at or "")[:19].replace("T", " ")
        click.echo(f"'{found.model}', compacted at {at} UTC, digest {found.digest}")
    _print_episodes(found.versions)
    _print_recorded(found.versions)
    _print_left_out(found.left_out)
    if found.dropped_decisions or found.dropped_feedback or found.lost_bytes:
        click.secho(
            f"Not recorded: {found.dropped_decisions:,} decisions and {found.dropped_feedback:,} feedback events that "
            f"replicas dropped, {found.lost_bytes:,} damaged bytes in segments.",
            fg="yellow",
        )
    if found.new_segments:
        click.echo(f"Not in the whole episodes: {_count(found.new_segments, 'segment')}. Next: {command}")
    elif found.unlisted:
        click.echo(f"Not converted to the end: the segments of {_count(found.unlisted, 'file')}.")


def _print_episodes(versions: Sequence["VersionStats"]) -> None:
    returns = _table("version", "episodes", "return", "min", "max", "length", "rewards reported")
    ends = _table("version", "terminated", "truncated", "unreported", "first (UTC)", "last (UTC)")
    for each in versions:
        counts = (each.terminated, each.truncated, each.unreported)
        ends.add_row(str(each.version), *(f"{n:,}" for n in counts), _time(each.first_ns), _time(each.last_ns))
        if each.return_mean is not None:
            returns.add_row(
                str(each.version),
                f"{each.episodes:,}",
                f"{each.return_mean:.1f} +- {each.return_std:.1f}",
                f"{each.return_min:.1f}",
                f"{each.return_max:.1f}",
                f"{each.length_mean:.1f}",
                f"{each.rewards_reported:.0%}",
            )
    if returns.row_count:
        Console().print(returns, "", sep="\n")
    Console().print(ends, "", sep="\n")


def _print_recorded(versions: Sequence["VersionStats"]) -> None:
    table = _table("version", "decisions", "in episodes", "audit: ok", "differs", "unchecked")
    for each in versions:
        counts = [each.audit.get(outcome, 0) for outcome in ("ok", "differs", "unchecked")]
        table.add_row(str(each.version), *(f"{n:,}" for n in (each.recorded, each.decisions, *counts)))
    Console().print(table, "", sep="\n")


def _table(*titles: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        table.add_column(title, no_wrap=True)
    return table


def _time(ns: int | None) -> str:
    return "-" if ns is None else datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def print_audit(report: "AuditReport") -> None:
    """Print the outcomes by version, and the first decisions that differ."""
    table = _table("version", "ok", "differs", "unchecked")
    for version, counts in report.versions.items():
        table.add_row(str(version), *(f"{count:,}" for count in counts.values()))
    Console().print(table)
    for each in report.differing:
        mode = "explored" if each.explored else "greedy"
        click.secho(
            f"{each.file}, segment {each.segment} of {each.replica}, offset {each.offset}, row {each.row}: version "
            f"{each.version}, episode {each.episode or '-'}, step {'-' if each.step is None else each.step}: served "
            f"{mode} {_action(each.served)}; recomputed inputs of the distribution: {_numbers(each.distribution)}",
            fg="red",
        )


def _action(served: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in served.items())


def _numbers(values: list[float] | None) -> str:
    return "-" if values is None else "[" + ", ".join(f"{value:.4g}" for value in values) + "]"


def print_forgotten(episodes: Sequence[str], done: "Forgotten", *, has_key: bool) -> None:
    """Print how many rows were removed, and what was not reached."""
    removed = done.decisions + done.feedback + done.steps + done.episodes
    click.echo(
        f"Forgotten: {_count(done.decisions, 'decision')}, {_count(done.feedback, 'feedback event')}, and "
        f"{_count(done.steps, 'step')} of {_count(done.episodes, 'whole episode')}."
    )
    if not removed:
        key = "the key is another one than the server's" if has_key else "the server has a key: pass it with --key-file"
        click.secho(
            f"Nothing was found of {', '.join(episodes)}. It was forgotten before, the name is another one, or {key}.",
            fg="yellow",
        )
    if done.unconverted:
        click.echo(f"Not reached: {_count(done.unconverted, 'file')} of segments whose conversion has not ended.")
    click.echo("Segments that a server's node has not converted yet are not reached. Run the command again after that.")
