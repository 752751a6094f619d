"""Measures the load of this machine with the monitors of MLflow."""

import logging
from typing import Any

import psutil
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor


class SystemMetrics:
    """CPU, memory, disk, network and GPU utilization, as MLflow's own system metrics name and measure them.

    MLflow's monitor stops for good when the tracking server is unreachable, so its thread is not used: the metric queue
    logs the measurements instead.

    Args:
        run_id: The MLflow run.
    """

    def __init__(self, run_id: str) -> None:
        logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)  # it reports a machine without GPUs
        self._monitor: Any = SystemMetricsMonitor(run_id)  # type: ignore[no-untyped-call]
        self._process = psutil.Process()

    def measure(self) -> dict[str, float]:
        """Return the metrics since the last call, by name; utilization is a mean over that time."""
        self._monitor.collect_metrics()
        metrics = {f"system/{name}": value for name, value in self._monitor.aggregate_metrics().items()}
        for monitor in self._monitor.monitors:
            monitor.clear_metrics()
        return metrics | {"system/process_memory_usage_megabytes": self._process.memory_info().rss / 1e6}
