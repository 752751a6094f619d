"""The configuration that `python -m serving deploy` sends; `ray/test_applications.py` deploys on a real cluster."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

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
