"""The alert rules fire when they should, and rules and dashboard ask for metrics that exist. Needs promtool."""

import importlib
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.drift import prometheus
from serving.errors import http_errors
from serving.play.errors import PlayBusy
from serving.protocols.protocol import INTERNAL_ERROR
from serving.replica.metrics import DESCRIPTIONS
from tests.workshop import PROJECT

PROMETHEUS = PROJECT / "deploy" / "prometheus"
RULES = PROMETHEUS / "alerts.yaml"
DASHBOARD = json.loads((PROJECT / "deploy" / "grafana" / "dashboard.json").read_text())
CASES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))
OPERATE = (PROJECT / "docs" / "how-to" / "operate.md").read_text()
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]

#: The metrics of Ray Serve that the rules and the dashboard use, by the source that declares them.
RAY_SERVE = {
    "ray_serve_application_status": "application_state.py",
    "ray_serve_autoscaling_target_replicas": "deployment_state.py",
    "ray_serve_deployment_replica_healthy": "deployment_state.py",
    "ray_serve_replica_startup_latency_ms": "deployment_state.py",
}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed; on Debian: apt-get install prometheus"
)


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> list[str]:
    """The queries of the dashboard, with Grafana's variables replaced as Grafana does."""
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    targets += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    return [text.replace("$__rate_interval", "1m").replace("$application", ".*") for text in targets]


def metrics_in(text: str) -> set[str]:
    """The metrics that a query names, the parts of a histogram under its own name."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bray_\w+", text)}


@needs_promtool
def test_the_rules_and_the_example_configuration_are_valid() -> None:
    promtool("check", "rules", RULES)
    promtool("check", "config", PROMETHEUS / "prometheus.yaml")


@needs_promtool
@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_an_alert_fires_when_it_should_and_not_otherwise(file: Path) -> None:
    promtool("test", "rules", file)


def test_every_alert_is_shown_firing_and_not_firing() -> None:
    assert [file.stem for file in CASES] == sorted(alert["alert"] for alert in ALERTS)
    for file in CASES:
        checks = [check for test in yaml.safe_load(file.read_text())["tests"] for check in test["alert_rule_test"]]
        assert {check["alertname"] for check in checks} == {file.stem}
        assert {bool(check.get("exp_alerts")) for check in checks} == {True, False}, file.stem


@needs_promtool
def test_every_query_of_the_dashboard_is_valid(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


@pytest.mark.parametrize("text", [*expressions(), *(alert["expr"] for alert in ALERTS)])
def test_every_metric_of_the_alerts_and_the_dashboard_exists(text: str) -> None:
    found = metrics_in(text)
    assert found
    assert found <= {f"ray_{name}" for name in DESCRIPTIONS} | RAY_SERVE.keys() | {prometheus.METRIC}


def test_ray_serve_still_declares_its_metrics_that_the_alerts_use() -> None:
    ray = importlib.util.find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    private = Path(ray.origin).parent / "serve" / "_private"
    for name, file in RAY_SERVE.items():
        assert f'"{name.removeprefix("ray_")}"' in (private / file).read_text(), name


def test_the_dashboard_shows_every_metric_of_a_replica() -> None:
    shown = set().union(*map(metrics_in, expressions()))
    assert {f"ray_{name}" for name in DESCRIPTIONS} <= shown


def test_the_dashboard_shows_the_drift_of_each_version() -> None:
    assert prometheus.METRIC in set().union(*map(metrics_in, expressions()))


def test_the_error_rate_counts_every_error_that_is_the_servers_fault() -> None:
    (expression,) = [alert["expr"] for alert in ALERTS if alert["alert"] == "PolicyErrorRate"]
    counted = re.search(r'code=~"([\w|]+)"', expression)
    assert counted is not None
    importlib.import_module("serving.http.policy_app")  # imports every module that defines errors
    failures = {error.code for error in http_errors() if error.status >= 500} | {INTERNAL_ERROR}
    assert set(counted[1].split("|")) == failures - {PlayBusy.code}  # /play is for people, who see what it says


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_has_a_section_in_the_runbook(alert: dict[str, Any]) -> None:
    assert alert["annotations"]["runbook"] == f"docs/how-to/operate.md#{alert['alert'].lower()}"
    assert f"\n### {alert['alert']}\n" in OPERATE


def test_the_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        for column in range(place["x"], place["x"] + place["w"]):
            for line in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((column, line), panel["title"]) == panel["title"]
                assert column < 24
