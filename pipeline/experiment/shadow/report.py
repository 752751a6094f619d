"""Writes the result of shadowing to MLflow: a run with metrics that are linked to the challenger, and a figure."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.entities import LoggedModelInput

from pipeline.experiment.shadow.shadow import Shadow
from pipeline.tracking.run import model_id_of
from serving.registry.tracking import check_artifact_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHART, TABLE = "figures/shadow.png", "shadow.json"


def report(run_id: str, shadow: Shadow) -> None:
    """Log a result to a run, and link it to the challenger's logged model."""
    client, challenger = mlflow.MlflowClient(), shadow.challenger
    check_artifact_uri(client.get_run(run_id).info.artifact_uri)
    model_id = model_id_of(challenger.name, challenger.version)
    if model_id:
        client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
    mlflow.log_metrics({f"shadow/{key}": value for key, value in _metrics(shadow).items()}, model_id=model_id)
    client.log_figure(run_id, draw(shadow), CHART)
    client.log_dict(run_id, content(shadow), TABLE)


def content(shadow: Shadow) -> dict[str, Any]:
    """Return a result as JSON."""
    return {
        "challenger": shadow.challenger.version,
        "versions": {str(number): figures.to_json() for number, figures in shadow.versions.items()},
        "total_variation": "exact" if shadow.is_exact else "upper bound",
        "latency_ms": [asdict(each) for each in shadow.latencies],
        "max_latency_ms": shadow.max_latency_ms,
        "is_finite": shadow.is_finite,
        "is_fast": shadow.is_fast,
        "notes": list(shadow.notes),
    }


def _metrics(shadow: Shadow) -> dict[str, float]:
    found = {key: float(value) for key, value in shadow.total.to_json().items() if value is not None}
    for each in shadow.latencies:
        for name, quantiles in (("challenger", each.challenger), ("champion", each.champion)):
            for level, value in zip(("p50", "p99"), quantiles or (), strict=False):
                found[f"latency_ms_{level}/{name}_batch_{each.batch}"] = value
    return found


def draw(shadow: Shadow) -> "Figure":
    """Return agreement by version, how the distributions differ, and the latency by batch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    agreement, variation, latency = figure.subplots(1, 3)
    numbers = [str(number) for number in shadow.versions]
    agreement.bar(numbers, [each.agreement or 0 for each in shadow.versions.values()], color="tab:blue")
    title = f"{shadow.challenger.name}: version {shadow.challenger.version} agrees"
    agreement.set(title=title, xlabel="version that was served", ylabel="share of greedy actions", ylim=(0, 1))
    for number, figures in shadow.versions.items():
        bins = figures.variation.bins
        if figures.variation.count:
            share = np.cumsum(bins) / figures.variation.count
            variation.plot(np.linspace(0, 1, len(bins)), share, label=f"version {number}")
            variation.legend()
    about = "total variation" if shadow.is_exact else "upper bound of the total variation"
    variation.set(title="Distributions of actions", xlabel=about, ylabel="share of decisions", ylim=(0, 1.02))
    for index, name in enumerate(("challenger", "champion")):
        shown = [(each.batch, getattr(each, name)) for each in shadow.latencies if getattr(each, name)]
        for style, quantile, label in (("-", 0, "p50"), ("--", 1, "p99")):
            points = [(batch, values[quantile]) for batch, values in shown]
            latency.plot(*np.reshape(points, (-1, 2)).T, style, marker="o", color=f"C{index}", label=f"{name} {label}")
    latency.set(title="One call of ONNX Runtime", xlabel="observations", ylabel="ms", xscale="log", yscale="log")
    latency.legend()
    return figure
