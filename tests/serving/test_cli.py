import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from serving.cli import main
from serving.http.policy_app import PolicyApp
from tests.serving.policies import CARTPOLE_BUNDLE
from tests.serving.store import Store
from tests.workshop import PROJECT, free_port


@pytest.mark.parametrize("command", [[], ["run"], ["deploy"], ["delete"], ["query"], ["status"]])
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    heavy = "{'ray', 'torch', 'mlflow', 'onnxruntime', 'gymnasium', 'numpy'} & set(sys.modules)"
    script = (
        f"import sys; from serving.cli import main; main({[*command, '--help']}, standalone_mode=False); print({heavy})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ")
    assert done.stdout.endswith("\nset()\n")


@pytest.mark.parametrize("command", main.commands.values(), ids=main.commands)
def test_every_command_and_option_has_help(command: click.Command) -> None:
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def refused(*arguments: str) -> str:
    """Run a command that must fail, and return the single line that it prints."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    return lines[0]


def refused_start(*options: str) -> str:
    """Run `serving run`, which must fail, on a free port."""
    return refused("run", "--port", str(free_port()), *options)


def test_an_empty_stage_stops_the_start(store: Store) -> None:
    store.register("waiting")
    assert refused_start("--model-uri", "models:/waiting/Production") == (
        "Error: No version of 'waiting' is in stage 'Production'. Promote one: python -m pipeline promote VERSION "
        "--name waiting, or "
        "in the MLflow UI. Versions: 1 (None)."
    )


@pytest.mark.usefixtures("store")
def test_an_unknown_model_stops_the_start() -> None:
    assert refused_start("--model-uri", "models:/nope/Production").startswith("Error: No model 'nope' is registered at")


@pytest.mark.usefixtures("store")
def test_a_wrong_uri_stops_the_start() -> None:
    assert refused_start("--model-uri", "nope").startswith(
        "Error: 'nope' is not the URI of a registered model, expected models:/"
    )


def test_an_mlflow_server_that_is_down_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert refused_start().startswith("Error: no MLflow server answers at http://127.0.0.1:1 (connection refused)")


def test_the_tracking_uri_is_an_option() -> None:
    line = refused_start("--tracking-uri", "http://127.0.0.1:1")
    assert line.startswith("Error: no MLflow server answers at http://127.0.0.1:1 (connection refused)")


def test_a_password_in_the_tracking_uri_is_refused_with_another_way() -> None:
    line = refused_start("--tracking-uri", "http://robot:s3cret@127.0.0.1:1")
    assert line.startswith(
        "Error: --tracking-uri: a password or token in a URI would be visible in the list of processes"
    )
    assert "Set MLFLOW_TRACKING_URI or MLFLOW_REGISTRY_URI in the server's environment instead" in line
    assert "s3cret" not in line


def test_a_limit_of_the_trial_is_an_option(store: Store, tmp_path: Path) -> None:
    store.register("limited", stage="Production")
    options = ("--candidate-timeout", "0.001", "--cache-dir", str(tmp_path))
    line = refused_start("--model-uri", "models:/limited/Production", *options)
    assert "within 0.001 s" in line


def test_a_taken_port_stops_the_start(store: Store) -> None:
    version = store.register("blocked")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        line = refused("run", "--model-uri", f"models:/blocked/{version}", "--port", str(port))
    assert line == f"Error: cannot listen on 127.0.0.1:{port} (Address already in use). Choose another port with --port"


def test_a_taken_port_prints_one_line_even_while_ray_is_imported() -> None:
    """In a process of its own, where an import that Python's end breaks would print a second traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "serving", "run", "--port", str(port)]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr


def test_a_missing_gpu_or_its_package_stops_the_start() -> None:
    line = refused_start("--execution-provider", "cuda")
    assert line.startswith("Error: --execution-provider cuda needs ")
    assert line.endswith("or omit the option to compute on the CPU")


def test_an_mlflow_that_is_down_prints_one_line_while_ray_is_imported() -> None:
    command = [sys.executable, "-m", "serving", "run", "--port", str(free_port()), "--tracking-uri"]
    done = subprocess.run([*command, "http://127.0.0.1:1"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr


@pytest.mark.parametrize("prefix", ["cartpole", "/my ppo", "/50%", "/{name}", "/x/"])
def test_a_route_prefix_that_no_proxy_can_match_stops_the_start(prefix: str) -> None:
    line = refused_start("--route-prefix", prefix)
    assert line.startswith(f"Error: the route prefix '{prefix}' is not / or a path of letters, digits and . _ ~ -")


@pytest.mark.parametrize("name", ["", "my ppo", "a/b", "..", "50%"])
def test_a_name_that_no_route_or_header_can_have_stops_the_start(name: str) -> None:
    expected = f"Error: the application's name '{name}' does not consist of letters, digits and . _ ~ -. Correct --name"
    assert refused_start("--name", name) == expected


@pytest.mark.parametrize("host", ["", "nowhere.invalid", "192.0.2.77", "a" * 70])
def test_a_host_that_is_not_this_machine_stops_the_start(host: str) -> None:
    assert "Give --host an address of this machine" in refused_start("--host", host)
    assert refused_start("--host", host).startswith(f"Error: cannot listen on {host}:")


def test_the_ports_of_grpc_and_http_must_differ() -> None:
    port = str(free_port())
    line = refused("run", "--port", port, "--grpc-port", port)
    assert line == f"Error: cannot listen on 127.0.0.1:{port} (taken by HTTP). Choose another port with --grpc-port"


def test_the_direct_port_must_be_free_and_differ_from_the_proxys() -> None:
    port = str(free_port())
    line = refused("run", "--port", port, "--direct-port", port)
    assert (
        line == f"Error: cannot listen on 127.0.0.1:{port} (taken by the proxy). Choose another port with --direct-port"
    )
    with socket.socket() as listener:
        # As the replicas of another server do.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = str(listener.getsockname()[1])
        assert refused_start("--direct-port", taken).endswith("Choose another port with --direct-port")


def test_a_tampered_graph_stops_the_start(store: Store, tmp_path: Path) -> None:
    version = store.register("forged")
    store.file("forged", version, "model.onnx").write_bytes(CARTPOLE_BUNDLE.graph + b"\0")
    options = ("--model-uri", f"models:/forged/{version}", "--cache-dir", str(tmp_path))
    assert refused_start(*options).startswith(
        "Error: model.onnx of version 1 of 'forged' was changed after it was registered: its sha256 is "
    )


def test_a_query_without_a_server_fails_with_one_line() -> None:
    assert refused("query", "--url", "http://127.0.0.1:1/x") == (
        "Error: no policy server answers at http://127.0.0.1:1/x (connection refused). Start one: python -m serving run"
    )


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:99999/x", "http://[::1", "http://a..b/x", "http://"])
def test_a_url_at_which_no_server_can_be_is_one_line(url: str) -> None:
    for command in ("query", "status"):
        assert refused(command, "--url", url).startswith("Error: ")


def test_a_token_file_without_an_end_is_one_line() -> None:
    assert "its content is not a token" in refused("status", "--auth-token-file", "/dev/zero")


@pytest.mark.parametrize("command", ["query", "status"])
def test_a_reader_that_goes_away_is_no_traceback(
    command: str, app: PolicyApp, serve_http: Callable[[Any], str]
) -> None:
    app.max_body_bytes = 1 << 20
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "serving", command, "--url", serve_http(app)],
        cwd=PROJECT,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("command", ["status", "query"])
def test_commands_over_http_import_neither_ray_nor_mlflow_nor_onnxruntime(command: str) -> None:
    heavy = "{'ray', 'torch', 'mlflow', 'onnxruntime', 'pandas'} & set(sys.modules)"
    arguments = [command, "--url", "http://127.0.0.1:1/policy"]
    script = (
        "import sys; from click.testing import CliRunner; from serving.cli import main; "
        f"print(CliRunner().invoke(main, {arguments}).output, {heavy})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Error: no policy server answers")
    assert done.stdout.endswith("set()\n")
