"""The configuration that `python -m serving deploy` sends; `ray/test_applications.py` deploys on a real cluster."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from ray.serve._private.deploy_utils import get_app_code_version
from ray.serve.schema import ApplicationDetails, ServeApplicationSchema

from serving.cli import main
from serving.commands.deploy import merged, read_config
from serving.commands.errors import ConfigInvalid
from serving.ray.errors import ApplicationOfServer, RouteTaken
from serving.release import release
from tests.workshop import free_port


def application(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "route_prefix": f"/{name}", "import_path": "serving.app:build", "args": {}, **changes}


def running(name: str, source: str = "declarative") -> dict[str, Any]:
    config = application(name) if source == "declarative" else None
    return {"source": source, "route_prefix": f"/{name}", "deployed_app_config": config}


def read(tmp_path: Path, *applications: dict[str, Any], **others: Any) -> dict[str, Any]:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**others, "applications": list(applications)}))
    return read_config(file)


def names(config: dict[str, Any]) -> list[str]:
    return [each["name"] for each in config["applications"]]


def test_an_application_without_a_release_gets_that_of_this_code(tmp_path: Path) -> None:
    config = read(tmp_path, application("a"), application("b", args={"release": "december"}))
    assert [each["args"]["release"] for each in config["applications"]] == [release(), "december"]


def test_the_first_file_is_sent_as_it_is(tmp_path: Path) -> None:
    config = read(tmp_path, application("a"), http_options={"port": 8123})
    assert merged(config, {}) == config
    assert config["http_options"] == {"port": 8123}


def test_other_applications_stay_and_settings_of_serve_do_too(tmp_path: Path) -> None:
    config = read(tmp_path, application("a"), http_options={"port": 8123}, logging_config={"log_level": "DEBUG"})
    found = merged(config, {"a": running("a"), "b": running("b"), "c": running("c", "imperative")}, 50.0)
    assert names(found) == ["b", "a"]
    assert found["applications"][0] == application("b")
    assert found["applications"][1]["logging_config"] == {"log_level": "DEBUG"}
    assert found.keys() == {"applications", "target_capacity"}
    assert found["target_capacity"] == 50.0


def test_serve_gets_another_teams_application_back_as_it_told_it(tmp_path: Path) -> None:
    """Otherwise it would take it for a new release, and replace its replicas."""
    args = {"autoscaling": {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 8}}
    options = {"name": "policy", "max_surge_percent": 0, "graceful_shutdown_timeout_s": 3}
    more = {"args": args, "deployments": [options], "runtime_env": {"env_vars": {"X": "1"}}}
    deployed = ServeApplicationSchema.model_validate(application("b", **more))
    state = {"status": "RUNNING", "message": "", "last_deployed_time_s": 1.0, "deployments": {}, "docs_path": None}
    told = ApplicationDetails(
        name="b",
        route_prefix="/b",
        source="declarative",
        external_scaler_enabled=False,
        deployed_app_config=ServeApplicationSchema.model_validate(deployed.model_dump(exclude_unset=True)),
        **state,
    )
    found = merged(read(tmp_path, application("a")), {"b": told.model_dump(mode="json", exclude_unset=True)})
    back = ServeApplicationSchema.model_validate(json.loads(json.dumps(found))["applications"][0])
    assert back.model_dump(exclude_unset=True) == deployed.model_dump(exclude_unset=True)
    assert get_app_code_version(back) == get_app_code_version(deployed)


def test_the_application_of_a_server_that_runs_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(ApplicationOfServer, match=r"^the application 'a' belongs to a `python -m serving run`"):
        merged(read(tmp_path, application("a")), {"a": running("a", "imperative")})


@pytest.mark.parametrize("source", ["declarative", "imperative"])
def test_the_route_of_another_application_is_not_taken(tmp_path: Path, source: str) -> None:
    with pytest.raises(RouteTaken, match=r"^the route /b belongs to the application 'b'"):
        merged(read(tmp_path, application("a", route_prefix="/b")), {"b": running("b", source)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("applications: [", "while parsing a flow node"),
        ("[]", "Input should be"),
        ("applications: [{name: a}]", "applications.0.import_path: Field required"),
        (yaml.safe_dump({"applications": [application("a"), application("a", route_prefix="/b")]}), "multiple configs"),
        (
            yaml.safe_dump({"applications": [application("a", args={"port": 1})]}),
            "port: Extra inputs are not permitted",
        ),
        (yaml.safe_dump({"applications": [application("a", args={"num_replicas": 0})]}), "num_replicas: Input should"),
    ],
)
def test_an_invalid_file_is_rejected_in_one_line(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)
    with pytest.raises(ConfigInvalid) as caught:
        read_config(file)
    assert str(caught.value).startswith(f"{file} is no valid Serve config file: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_dashboard_that_does_not_answer_are_errors_of_one_line(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    missing = CliRunner().invoke(main, ["deploy", str(tmp_path / "none.yaml"), "--address", address])
    assert missing.stderr.splitlines() == [
        f"Error: {tmp_path}/none.yaml is no valid Serve config file: No such file or directory"
    ]
    read(tmp_path, application("a"))
    unreachable = CliRunner().invoke(main, ["deploy", str(tmp_path / "config.yaml"), "--address", address])
    assert (unreachable.exit_code, len(unreachable.stderr.splitlines())) == (1, 1)
    assert f"cannot join the Ray cluster at {address}: Failed to connect" in unreachable.stderr
