"""The generated parts of the documents are fresh, and the tables that people wrote agree with the code."""

import asyncio
import itertools
import json
import re

import numpy as np
import pytest
import yaml
from gymnasium import spaces

from docs.error_messages import EXAMPLES
from docs.generate import PARTS, generated
from pipeline.config import TrainConfig
from serving.arguments import Arguments
from serving.http.policy_app import PolicyApp
from serving.policy.spaces import leaves
from serving.protocols.protocol import INTERNAL_ERROR
from serving.ray.settings import serve_settings
from tests.docs.pages import DOCS, blocks, name, rows
from tests.serving.asking import ask, served
from tests.serving.malformed import ask_app, corpus, mutated_requests
from tests.serving.policies import COUNTING_BUNDLE, ROBOT_BUNDLE
from tests.workshop import PROJECT

GENERATED = [page for page in sorted(DOCS.rglob("*.md")) if "<!-- BEGIN " in page.read_text()]
HTTP_API = DOCS / "reference" / "http-api.md"


@pytest.mark.parametrize("page", GENERATED, ids=name)
def test_the_generated_parts_of_a_page_are_what_the_code_says(page):
    assert page.read_text() == generated(page.read_text()), f"{name(page)} is stale; run: make docs"


def test_every_generated_part_is_in_a_page():
    used = {part for page in GENERATED for part in re.findall(r"<!-- BEGIN ([\w-]+) -->", page.read_text())}
    assert used == set(PARTS)


def test_the_examples_of_errors_are_of_codes_that_exist():
    listed = {row[1].strip("`") for row in rows(DOCS / "reference" / "error-codes.md", "status")}
    assert set(EXAMPLES) | {INTERNAL_ERROR} == listed


def test_every_message_that_a_malformed_request_gets_is_listed():
    listed = [
        row[1].strip("`").replace("&#124;", "|") for row in rows(DOCS / "reference" / "error-codes.md", "error code")
    ]
    patterns = [re.compile(re.escape(text).replace("…", ".*"), re.DOTALL) for text in listed]
    for bundle in (COUNTING_BUNDLE, ROBOT_BUNDLE):
        app = PolicyApp(served(bundle, "fuzzed", 1), Arguments(max_body_bytes=9000))
        source = mutated_requests(corpus(ask(app, "GET", "/openapi.json").json()), seed=2)
        answers = [asyncio.run(ask_app(app, request)) for request in itertools.islice(source, 400)]
        for message in [message_of(json.loads(body)) for status, body in answers if status >= 400 and body[:1] == b"{"]:
            assert any(pattern.fullmatch(message) for pattern in patterns), message


def message_of(error):
    """The message of an error in the form of any protocol."""
    found = error.get("error", error)
    return found if isinstance(found, str) else found["message"]


def test_every_code_has_a_message_in_the_table():
    codes = {row[0].strip("`") for row in rows(DOCS / "reference" / "error-codes.md", "error code")}
    assert set(EXAMPLES) | {INTERNAL_ERROR} <= codes


def test_a_changed_row_of_a_generated_table_is_found():
    text = (DOCS / "reference" / "training-parameters.md").read_text()
    changed = text.replace("| `seed` | `0` |", "| `seed` | `1` |")
    assert changed != text == generated(changed)


def test_every_shipped_file_of_settings_is_listed_and_is_valid():
    shipped = sorted((PROJECT / "pipeline" / "tuned").glob("*.yaml"))
    listed = [row[0] for row in rows(DOCS / "explanation" / "benchmarks.md", "settings")]
    assert listed == [f"`{file.relative_to(PROJECT)}`" for file in shipped]
    for file in shipped:
        TrainConfig.of(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize("row", rows(HTTP_API, "JSON form of"), ids=lambda row: row[0])
def test_every_example_of_a_json_form_is_decoded(row):
    from serving.protocols.native.observations import ObservationReader

    space = eval(row[0].strip("`"), {**vars(spaces), "uint8": np.uint8})
    read = ObservationReader(space).read(json.loads(row[1].strip("`")))
    assert [array.shape for array in read.values()] == [(1, *leaf.space.shape) for leaf in leaves(space)]


def test_every_option_of_a_request_is_listed():
    from serving.protocols.native.json_codec import OPTIONS, STATE, STATES

    listed = [re.search(r'"(\w+)"', row[0])[1] for row in rows(HTTP_API, "request option")]
    assert listed == [*OPTIONS, STATE, STATES]


def test_the_effect_of_every_cluster_setting_is_listed():
    listed = {row[0].strip("`") for row in rows(DOCS / "reference" / "cluster-settings.md", "variable")}
    assert listed == set(serve_settings(cpus=2))


def test_serves_config_file_registers_the_rpcs():
    from serving.ray.cluster import SERVICER_FUNCTION

    (block,) = [each for each in blocks(DOCS / "how-to" / "run-on-a-cluster.md", "yaml") if "grpc_options" in each]
    assert yaml.safe_load(block)["grpc_options"]["grpc_servicer_functions"] == [SERVICER_FUNCTION]


def test_every_metric_of_the_learner_is_defined():
    from pipeline.rllib.trainer import _LEARNER_METRICS

    listed = {row[0].strip("`") for row in rows(DOCS / "reference" / "metrics.md", "metric")}
    assert set(_LEARNER_METRICS.values()) <= listed
