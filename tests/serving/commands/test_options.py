import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

from serving.arguments import Arguments
from serving.cli import main
from serving.commands.options import argument_options, option_name
from tests.workshop import PROJECT


@click.command()
@argument_options
def command(arguments: Arguments) -> None:
    """Print the arguments that were given."""
    click.echo(arguments.model_dump_json(exclude_unset=True))


@pytest.mark.parametrize(("name", "field"), Arguments.model_fields.items(), ids=Arguments.model_fields)
def test_every_argument_is_an_option_of_run_with_its_default_and_help(name: str, field: Any) -> None:
    (option,) = [option for option in main.commands["run"].params if option.name == name]
    assert isinstance(option, click.Option)
    assert option.opts == [option_name(name)]
    assert option.default == field.default
    assert option.help == field.description
    assert field.description


def test_the_names_of_the_options_are_those_of_the_fields_without_the_unit_of_seconds() -> None:
    assert option_name("max_body_bytes") == "--max-body-bytes"
    assert option_name("batch_wait_timeout_s") == "--batch-wait-timeout"


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ([], "{}"),
        (["--num-threads", "2", "--candidate-timeout", "3"], '{"candidate_timeout_s":3.0,"num_threads":2}'),
        (
            ["--cors-origin", "https://a.b,https://c.d", "--cors-origin", "http://e:80"],
            '{"cors_origin":["https://a.b","https://c.d","http://e:80"]}',
        ),
        (["--environment-modules", "a,b.c"], '{"environment_modules":["a","b.c"]}'),
        (["--cache-bytes", "0", "--access-log"], '{"cache_bytes":0,"access_log":true}'),
    ],
)
def test_only_the_options_that_are_given_become_arguments(options: list[str], given: str) -> None:
    assert CliRunner().invoke(command, options).stdout == f"{given}\n"


def test_autoscaling_is_given_as_json() -> None:
    given = CliRunner().invoke(command, ["--autoscaling", '{"min_replicas": 1, "max_replicas": 4}']).stdout
    autoscaling = Arguments.model_validate_json(given).autoscaling
    assert autoscaling is not None
    assert (autoscaling.max_replicas, autoscaling.upscale_delay_s) == (4, 10.0)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["--num-replicas", "1", "--autoscaling", "{}"],
            "Error: --num-replicas and --autoscaling contradict each other: give one of them",
        ),
        (
            ["--batch-wait-timeout", "0.01", "--max-batch-size", "1"],
            "Error: --batch-wait-timeout only adds latency if --max-batch-size is 1: give one of them",
        ),
        (
            ["--autoscaling", '{"target_ongoing_requests": 9}', "--max-ongoing-requests", "8"],
            "Error: target_ongoing_requests is above --max-ongoing-requests and can never be reached: lower it",
        ),
        (
            ["--autoscaling", '{"min_replicas": 3}'],
            "Error: --autoscaling: min_replicas 3 is above max_replicas 2",
        ),
        (
            ["--autoscaling", '{"replicas": 3}'],
            "Error: --autoscaling: replicas: Extra inputs are not permitted",
        ),
        (["--refresh-interval", "inf"], "Error: --refresh-interval: Input should be a finite number"),
        (
            ["--refresh-interval", "1e10"],
            "Error: --refresh-interval: Input should be less than or equal to 86400",
        ),
        (
            ["--candidate-timeout", "1e10"],
            "Error: --candidate-timeout: Input should be less than or equal to 86400",
        ),
        (["--candidate-timeout", "nan"], "Error: --candidate-timeout: Input should be a finite number"),
        (
            ["--autoscaling", '{"target_ongoing_requests": Infinity}'],
            "Error: --autoscaling: target_ongoing_requests: Input should be a finite number",
        ),
        (
            ["--autoscaling", "3 to 4"],
            'Error: --autoscaling: expected JSON like {"max_replicas": 4} (Extra data: line 1 column 3 (char 2))',
        ),
    ],
)
def test_contradictions_are_refused_in_one_line_that_names_the_options(options: list[str], line: str) -> None:
    result = CliRunner().invoke(main, ["run", *options])
    assert (result.exit_code, result.stderr) == (1, f"{line}\n")


def test_a_contradiction_is_found_before_anything_heavy_is_loaded() -> None:
    script = (
        "import sys; from serving.cli import main; "
        "main(['run', '--num-replicas', '1', '--autoscaling', '{}'], standalone_mode=False)"
    )
    check = f"try:\n    {script}\nfinally:\n    print({{'ray', 'mlflow', 'gymnasium', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "set()\n")
    assert "contradict each other" in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "range_"),
    [("--num-threads", "0", "x>=1"), ("--refresh-interval", "0", "x>0"), ("--cache-bytes", "-1", "x>=0")],
)
def test_a_value_out_of_range_is_refused_with_the_range(option: str, value: str, range_: str) -> None:
    result = CliRunner().invoke(command, [option, value])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr
    assert f"not in the range {range_}." in result.stderr


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_the_time_to_start_is_finite(value: str) -> None:
    result = CliRunner().invoke(main, ["run", "--startup-timeout", value])
    assert result.exit_code == 2
    assert f"Invalid value for '--startup-timeout': {value} is not a finite number." in result.stderr
