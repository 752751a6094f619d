"""`python -m serving status` shows what each replica serves.

It needs HTTP only, from any machine: each replica returns its id and the number of replicas in `/model`, and the proxy
distributes new connections over them, so that repeated requests reach each one.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serving.client.client import PolicyClient
from serving.client.errors import ServerUnreachable
from serving.client.token_file import read_token
from serving.commands.descriptions import Model, Monitored, described
from serving.errors import one_line, redacted
from serving.policy.execution import CPU
from serving.policy.spaces import Json

REQUESTS_PER_REPLICA = 8
"""The most requests per replica; the proxy may send several to the same one."""

INTERVAL_S = 1.0

WIDE = 110
"""Consoles with fewer columns do not show `stage`, `swaps` and the date of the last refresh."""


@dataclass(frozen=True)
class Sample:
    """The responses of the replicas to `GET /model` at one time, by replica id."""

    models: Mapping[str, Model]
    at: float = field(default_factory=time.monotonic)

    def rate(self, replica: str, before: "Sample") -> float | None:
        """Return the requests per second that a replica answered since `before`, or None if it was not in there."""
        if replica not in before.models or self.at <= before.at:
            return None
        now, then = (sample.models[replica]["replica"]["answered"] for sample in (self, before))
        return float(now - then) / (self.at - before.at)


def status(url: str, *, watch: bool, token_file: str | None = None) -> None:
    """Print what each replica serves; with `watch`, update it every second until Ctrl-C.

    Raises:
        ServerUnreachable, RequestRefused: as `PolicyClient`; `watch` shows ServerUnreachable and continues.
        TokenFileInvalid: the file contains no token.
    """
    console = Console()
    token = token_file and read_token(token_file)
    before = sample_replicas(url, token)
    time.sleep(INTERVAL_S)
    if not watch:
        console.print(_report(url, sample_replicas(url, token), before, console.width))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                after = sample_replicas(url, token)
            except ServerUnreachable as error:
                live.update(Text(str(error), style="red"), refresh=True)
            else:
                live.update(_report(url, after, before, console.width), refresh=True)
                before = after
            time.sleep(INTERVAL_S)


def sample_replicas(url: str, token: str | None = None) -> Sample:
    """Query `/model` over new connections until every replica has responded, at most REQUESTS_PER_REPLICA times each.

    Raises:
        ServerUnreachable, RequestRefused: as `PolicyClient`.
    """
    models: dict[str, Model] = {}
    requests, num_replicas = 0, 1
    while len(models) < num_replicas and requests < REQUESTS_PER_REPLICA * num_replicas:
        with PolicyClient(url, token=token) as client:
            model = described(client, Monitored)
        models[model["replica"]["id"]] = model
        num_replicas = model["replica"]["of"]
        requests += 1
    return Sample(models)


def _report(url: str, sample: Sample, before: Sample, width: int) -> Group:
    some = next(iter(sample.models.values()))
    versions = sorted({model["version"] for model in sample.models.values()})
    head = f"{some['name']} version {' and '.join(map(str, versions))} ({some['model_uri']})"
    num_replicas = max(model["replica"]["of"] for model in sample.models.values())
    count = f"{len(sample.models)} of {num_replicas} replicas answer at {url}{_provider(some)}"
    errors = {error for model in sample.models.values() if (error := _error(model))}
    # Servers of earlier releases do not send it.
    releases = sorted({model["replica"].get("release") or "an earlier one" for model in sample.models.values()})
    if len(releases) > 1:
        errors.add(f"replicas run different releases of the code: {', '.join(releases)}")
    notes = [Text(one_line(error), style="yellow") for error in sorted(errors)]
    return Group(
        Text(one_line(head), style="bold"),
        Text(redacted(count)),
        _table(sample, before, wide=width >= WIDE),
        *_online(sample),
        *(Text(one_line(line)) for line in _experiments(sample)),
        *notes,
    )


def _table(sample: Sample, before: Sample, *, wide: bool) -> Table:
    rows = [_cells(model, sample.rate(each, before), wide=wide) for each, model in sorted(sample.models.items())]
    table = Table(*rows[0], box=None, header_style="bold", pad_edge=False)
    for row in rows:
        # As text: a string of the server could hold rich's markup, or characters that control the terminal.
        table.add_row(*(Text(one_line(str(cell))) for cell in row.values()))
    return table


def _online(sample: Sample) -> list[Table]:
    """Return a table of the finished episodes of each version over all replicas, none if there are none."""
    found = [(int(version), each) for model in sample.models.values() for version, each in _reported(model).items()]
    table = Table(
        "version", "online episodes", "mean return", "mean length", box=None, header_style="bold", pad_edge=False
    )
    for version in sorted({version for version, _ in found}):
        parts = [each for number, each in found if number == version]
        mean = _mean([(each["return_mean"], each["episodes"]) for each in parts])
        length = _mean([(each["length_mean"], each["length_count"]) for each in parts])
        episodes = sum(each["episodes"] for each in parts)
        table.add_row(str(version), str(episodes), mean, length)
    return [table] if found else []


def _experiments(sample: Sample) -> list[str]:
    """Return a line for each experiment over all replicas. Servers of earlier releases have none."""
    found = [model["experiment"] for model in sample.models.values() if model.get("experiment")]
    return [
        _experiment([each for each in found if each["id"] == name]) for name in sorted({each["id"] for each in found})
    ]


def _experiment(parts: Sequence[Mapping[str, Json]]) -> str:
    """Return a line for one experiment, of which each replica has sent a part."""
    first, taking = parts[0], sum(part["share"] > 0 for part in parts)
    answered = {arm: sum(part["answered"][arm] for part in parts) for arm in ("champion", "challenger")}
    share = max(part["share"] for part in parts)
    if first["decision"]:
        state = f"ended ({first['decision']})"
    elif datetime.fromisoformat(first["expires_at"]) <= datetime.now(UTC):
        state = "expired"
    else:
        where = "" if taking == len(parts) else f" at {taking} of {len(parts)} replicas"
        state = f"{share:.3g} of the episodes{where}"
    failed = sum(part["failed"] for part in parts)
    return (
        f"Experiment {first['id']}: version {first['challenger']} beside {first['champion']}, {state}, until "
        f"{first['expires_at']}. Requests: {answered['champion']} in the champion's arm, {answered['challenger']} in "
        f"the challenger's, {failed} of them answered by the champion after a failure."
    )


def _reported(model: Model) -> Mapping[str, Json]:
    """Return the member `online`, which servers without experience and those of earlier releases do not send."""
    online: Mapping[str, Json] = model.get("online", {})
    return online


def _mean(parts: Sequence[tuple[float | None, int]]) -> str:
    known = [(mean, count) for mean, count in parts if mean is not None and count > 0]
    total = sum(count for _, count in known)
    return f"{sum(mean * count for mean, count in known) / total:.1f}" if known else "-"


def _cells(model: Model, rate: float | None, *, wide: bool) -> dict[str, Json]:
    """Return the cells of a replica by their column."""
    replica, refreshed = model["replica"], model["last_refresh"]
    return {
        "replica": replica["id"],
        "version": model["version"],
        **({"stage": "-" if model["stage"] in (None, "", "None") else model["stage"]} if wide else {}),
        "status": _status(model),
        # Of "2026-11-22T20:00:00+00:00", a narrow console shows "20:00:00Z".
        "refreshed": "never" if refreshed is None else refreshed if wide else f"{refreshed[11:19]}Z",
        "requests/s": "-" if rate is None else round(rate),
        "answered": replica["answered"],
        "errors": replica["errors"],
        **({"swaps": model["swaps"]} if wide else {}),
    }


def _provider(model: Model) -> str:
    provider = model.get("execution_provider", CPU)  # servers of earlier releases do not send it
    return "" if provider == CPU else f", computing on {one_line(str(provider))}"


def _status(model: Model) -> str:
    if model["degraded"]:
        return "degraded"
    if model["refused"]:
        return f"rejected {model['refused']['version']}"
    if model.get("stale"):  # servers of earlier releases do not send it
        return "stale"
    return "not confirmed" if model["refresh_error"] else "ok"


def _error(model: Model) -> str | None:
    error, last = model["refresh_error"], model["last_refresh"]
    if model["degraded"]:
        return f"Serving the last known good version: {error}"
    if model.get("stale") and not error:
        return f"Replica {model['replica']['id']} has received no answer from the registry since {last}."
    return None if error is None else str(error)
