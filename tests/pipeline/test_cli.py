"""What all commands of the pipeline do before they start."""

import pytest
from click.testing import CliRunner
from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT as PRINTS_NO_LINK

from pipeline.cli import cli


@pytest.mark.parametrize(("uri", "hidden"), [("http://user:secret@mlflow:5000", True), ("http://mlflow:5000", False)])
def test_mlflow_prints_no_link_with_credentials(monkeypatch: pytest.MonkeyPatch, uri: str, hidden: bool) -> None:  # noqa: FBT001
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv(PRINTS_NO_LINK.name, "false")
    CliRunner().invoke(cli, ["versions", "--help"])
    assert PRINTS_NO_LINK.get() is hidden
