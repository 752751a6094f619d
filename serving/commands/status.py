"""What `python -m serving status` does: ask every replica what it serves, and show it.

HTTP is all it needs, from any machine: each replica says in `/model` who it is and of how many, and the proxy spreads
new connections over them, so asking often enough reaches each.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serving.client.client import PolicyClient
from serving.client.errors import ServerUnreachable
from serving.policy.spaces import Json
from serving.replica.auth import read_token

TRIES_PER_REPLICA = 8
INTERVAL_S = 1.0

Model = Mapping[str, Json]


@dataclass(frozen=True)
class Sample:
    """What the replicas said of themselves at one time, by their ids."""

    models: Mapping[str, Model]
    at: float = field(default_factory=time.monotonic)

    @property
    def wanted(self) -> int:
        """How many replicas were asked for."""
        return max(int(model["replica"]["of"]) for model in self.models.values())

    def rate(self, replica: str, before: "Sample") -> float | None:
        """Return the requests that a replica answered per second since another sample; None if it is new."""
        if replica not in before.models or self.at <= before.at:
            return None
        now, then = (sample.models[replica]["replica"]["answered"] for sample in (self, before))
        return float(now - then) / (self.at - before.at)


def status(url: str, *, watch: bool, token_file: str | None = None) -> None:
    """Print what each replica serves; with `watch` go on until Ctrl-C.

    Raises:
        ServerUnreachable, RequestRefused: as the client does; not once it is watching.
        TokenFileInvalid: there is no token in the file.
    """
    console = Console()
    token = token_file and read_token(token_file)
    before = ask(url, token)
    time.sleep(INTERVAL_S)
    if not watch:
        console.print(_shown(url, ask(url, token), before))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                after = ask(url, token)
            except ServerUnreachable as error:
                live.update(Text(str(error), style="red"), refresh=True)
            else:
                live.update(_shown(url, after, before), refresh=True)
                before = after
            time.sleep(INTERVAL_S)


def ask(url: str, token: str | None = None) -> Sample:
    """Ask over new connections, until every replica has answered, or chance has had its chances.

    Raises:
        ServerUnreachable, RequestRefused: as the client does.
    """
    models: dict[str, Model] = {}
    tries, wanted = 0, 1
    while len(models) < wanted and tries < TRIES_PER_REPLICA * wanted:
        with PolicyClient(url, token=token) as client:
            model = client.model()
        models[model["replica"]["id"]] = model
        wanted = model["replica"]["of"]
        tries += 1
    return Sample(models)


def _shown(url: str, sample: Sample, before: Sample) -> RenderableType:
    some = next(iter(sample.models.values()))
    versions = sorted({model["version"] for model in sample.models.values()})
    head = f"{some['name']} version {' and '.join(map(str, versions))} ({some['model_uri']}) at {url}"
    count = f"{len(sample.models)} of {sample.wanted} replicas answer"
    faults = {fault for model in sample.models.values() if (fault := _fault(model))}
    notes = [Text(fault, style="yellow") for fault in sorted(faults)]
    return Group(Text(head, style="bold"), Text(count), _table(sample, before), *notes)


def _table(sample: Sample, before: Sample) -> Table:
    table = Table("replica", "version", "stage", "status", "last refresh", "requests/s", "answered", "errors", "swaps")
    for identity, model in sorted(sample.models.items()):
        replica, rate = model["replica"], sample.rate(identity, before)
        cells: list[Any] = [identity, model["version"], model["stage"], _state(model), model["last_refresh"] or "never"]
        cells += ["-" if rate is None else f"{rate:.0f}", replica["answered"], replica["errors"], model["swaps"]]
        table.add_row(*map(str, cells))
    return table


def _state(model: Model) -> str:
    if model["degraded"]:
        return "degraded"
    if model["refused"]:
        return f"refused {model['refused']['version']}"
    return "not refreshed" if model["refresh_error"] else "ok"


def _fault(model: Model) -> str | None:
    error = model["refresh_error"]
    return f"Serving the last known good version: {error}" if model["degraded"] else error
