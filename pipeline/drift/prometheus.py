"""Writes the drift of a version as a metric, into a file that Prometheus' node_exporter reads."""

import os
import tempfile
from pathlib import Path

from pipeline.drift.errors import MetricsFileUnwritable

METRIC = "ray_policy_drift"
DESCRIPTION = (
    "The largest statistic of the observations' drift, in units of its threshold: above 1, they differ from those of "
    "the version's final evaluation"
)


def write_metric(file: Path, model: str, version: int, ratio: float) -> None:
    """Write a file for the textfile collector, in one step: a scrape never reads a part of it.

    Raises:
        MetricsFileUnwritable: The file cannot be written.
    """
    labels = f'model="{_escaped(model)}",version="{version}"'
    text = f"# HELP {METRIC} {DESCRIPTION}\n# TYPE {METRIC} gauge\n{METRIC}{{{labels}}} {ratio:.6g}\n"
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        Path(temporary).chmod(0o644)  # node_exporter runs as another user
        Path(temporary).replace(file)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise MetricsFileUnwritable(str(file), error.strerror or str(error)) from error


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
