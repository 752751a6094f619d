"""Experience in S3 as the input of `ope` and `drift`, whose MLflow store is elsewhere."""

import mlflow
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.experience.compaction.run import CompactOptions, compact
from pipeline.experience.progress import StageProgress
from serving.experience.store import open_store
from tests.pipeline.experience.recording import MODEL, NOW_NS
from tests.pipeline.ope.recorded import policy, record
from tests.serving.store import Store
from tests.stores.servers import BUCKET, S3

pytestmark = pytest.mark.stores

WEIGHT, RIGHT = 0.4, 2
URI = f"s3://{BUCKET}/judged"


@pytest.fixture
def recorded(s3: S3, new_database, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Episodes of version 1 in S3, half of them sampled; only AWS_ENDPOINT_URL names the server."""
    new_database(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    environment = dict(s3.environment)
    monkeypatch.setenv("AWS_ENDPOINT_URL", environment.pop("AWS_ENDPOINT_URL_S3"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    registry = Store(mlflow.get_tracking_uri(), tmp_path)
    for bundle in (policy(WEIGHT), policy(9)):
        registry.register(MODEL, bundle)
    store = open_store(URI)
    record(store, WEIGHT, 1000, greedy_share=0.5)
    with StageProgress() as progress:
        compact(store, MODEL, CompactOptions(), progress, NOW_NS)
    yield
    mlflow.set_tracking_uri(None)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments, env={"COLUMNS": "120"})
    return result.exit_code, result.output


@pytest.mark.usefixtures("recorded")
def test_a_version_is_judged_and_observations_are_compared_from_s3():
    status, shown = run("ope", f"models:/{MODEL}/{RIGHT}", "--experience", URI)
    assert status == 0, shown
    assert "Is it better than what was recorded? Better." in shown
    status, shown = run("drift", URI, "--play", "20")
    assert status == 3, shown  # the recorded observations are those of no CartPole
    assert "live episodes from" in shown
    runs = mlflow.search_runs(["0"], output_format="list")
    assert {each.info.run_name for each in runs} == {f"ope {MODEL} {RIGHT}", f"drift of {MODEL} version 1"}
