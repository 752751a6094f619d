"""The README is true: its tables are the code's, and its commands exist. `tests/e2e/test_journey.py` runs them."""

import json
import re
import shlex

import click
import numpy as np
import pytest
import yaml
from gymnasium import spaces

from pipeline.cli import cli as pipeline_cli
from pipeline.config import SETTINGS, TrainConfig
from pipeline.rllib.trainer import _LEARNER_METRICS
from serving.app import Arguments
from serving.cli import main as serving_cli
from serving.errors import http_errors
from serving.policy.spaces import leaves
from serving.protocols.native.json_codec import OPTIONS, STATE, STATES
from serving.protocols.native.observations import ObservationReader
from serving.arguments import Autoscaling
from serving.ray.cluster import SERVICER_FUNCTION
from serving.ray.settings import serve_settings
from serving.replica.metrics import DESCRIPTIONS
from tests.pipeline.cases import CASES
from tests.workshop import PROJECT

README = (PROJECT / "README.md").read_text()


def rows(first_column: str) -> list[list[str]]:
    """The cells of each row of the table whose header begins with this column."""
    table = README.split(f"| {first_column} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_parameters_are_those_of_the_configuration():
    expected = [
        [f"`{setting.name}`", f"`{'auto' if setting.default is None else setting.default}`", setting.metadata["help"]]
        for setting in SETTINGS
    ]
    assert rows("parameter") == expected


def test_every_shipped_file_of_settings_is_listed_and_makes_sense():
    shipped = sorted((PROJECT / "pipeline" / "tuned").glob("*.yaml"))
    assert [row[0] for row in rows("settings")] == [f"`{file.relative_to(PROJECT)}`" for file in shipped]
    for file in shipped:
        TrainConfig.of(yaml.safe_load(file.read_text()))


def test_the_arguments_of_the_application_are_listed():
    from serving.app import Arguments

    expected = [
        [f"`{name}`", f"`{'none' if field.default is None else field.default}`", field.description]
        for name, field in Arguments.model_fields.items()
    ]
    assert rows("argument") == expected


def test_every_error_code_is_listed_with_its_status():
    listed = {(row[0], row[1].strip("`")) for row in rows("status")}
    assert listed == {(str(int(error.status)), error.code) for error in http_errors()}


@pytest.mark.parametrize(("column", "model"), [("argument", Arguments), ("autoscaling", Autoscaling)])
def test_the_serving_arguments_are_those_of_the_application(column, model):
    expected = [
        [f"`{name}`", f"`{'none' if field.default is None else field.default}`", field.description]
        for name, field in model.model_fields.items()
    ]
    assert rows(column) == expected


@pytest.mark.parametrize("row", rows("JSON form of"), ids=lambda row: row[0])
def test_every_example_of_a_json_form_is_one(row):
    space = eval(row[0].strip("`"), {**vars(spaces), "uint8": np.uint8})
    read = ObservationReader(space).read(json.loads(row[1].strip("`")))
    assert [array.shape for array in read.values()] == [(1, *leaf.space.shape) for leaf in leaves(space)]


def test_every_option_of_a_request_is_listed():
    listed = [re.search(r'"(\w+)"', row[0])[1] for row in rows("request option")]
    assert listed == [*OPTIONS, STATE, STATES]


def test_every_serving_metric_is_listed_as_described():
    assert rows("serving metric") == [[f"`ray_{name}`", meaning] for name, meaning in DESCRIPTIONS.items()]


def test_a_cluster_is_told_of_every_setting_that_it_needs():
    section = README.split("#### On a cluster", 1)[1].split("####", 1)[0]
    assert all(f"{name}={shlex.quote(setting)}" in section for name, setting in serve_settings(cpus=2).items())


def test_serves_config_file_is_told_of_the_rpcs():
    (block,) = re.findall(r"```yaml\n(grpc_options:.*?)```", README, flags=re.DOTALL)
    assert yaml.safe_load(block)["grpc_options"]["grpc_servicer_functions"] == [SERVICER_FUNCTION]


def test_every_learner_metric_is_defined():
    assert set(_LEARNER_METRICS.values()) <= {row[0].strip("`") for row in rows("metric")}


def test_the_policies_that_are_verified_are_those_of_the_test():
    assert rows("verified") == [[f"`{name}`", why] for name, (_, why) in CASES.items()]


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("python -m")])
def test_every_command_line_parses(command):
    _, _, module, name, *arguments = shlex.split(command)
    group = {"pipeline": pipeline_cli, "serving": serving_cli}[module]
    found = group.commands[name]
    found.make_context(name, arguments, parent=click.Context(group))
