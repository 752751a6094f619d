"""Experience in S3: whole episodes, statistics and forgetting through a real server."""

import io
from pathlib import Path

import mlflow
import pytest
from rich.console import Console

from pipeline.experience.compaction.run import CompactOptions, compact
from pipeline.experience.forgetting import forget
from pipeline.experience.progress import StageProgress
from pipeline.experience.stats import stats
from pipeline.experience.whole_episodes import WholeEpisodes
from serving.experience.store import open_store
from tests.pipeline.experience.recording import HASH, MODEL, NOW_NS
from tests.pipeline.experience.test_join import Scenario, assert_is_truth
from tests.pipeline.learning.playing import cartpole_logs
from tests.stores.servers import BUCKET, MARKER, S3
from tests.workshop import Workshop

pytestmark = pytest.mark.stores


@pytest.fixture
def quiet():
    with StageProgress(Console(file=io.StringIO())) as progress:
        yield progress


@pytest.fixture
def store(s3: S3, monkeypatch: pytest.MonkeyPatch):
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3.environment["AWS_ENDPOINT_URL_S3"])
    return open_store(f"s3://{BUCKET}/experience")


def test_experience_in_s3_is_compacted_described_and_forgotten(store, quiet):
    scenario = Scenario(3, episodes=100)
    scenario.record(store, segments=4)
    compact(store, MODEL, CompactOptions(), quiet, NOW_NS)
    assert_is_truth(store, scenario)
    whole = WholeEpisodes.open(store, MODEL)
    assert sum(each.episodes for each in stats(store, MODEL).versions) == whole.content["episodes"]
    name = whole.summary()["eps_id"][0].as_py()
    gone = next(each.episode for each in scenario.decisions if each.episode and HASH(each.episode).hex() == name)
    assert forget(store, [MODEL], [HASH(gone)], quiet).episodes == 1
    contents = [store.read(path) for path in store.files("")]
    assert not [content for content in contents if HASH(gone) in content or name.encode() in content]
    directories = {path.split("/")[2] for path in store.files(f"episodes/{MODEL}")}
    assert directories == {"current.json", WholeEpisodes.open(store, MODEL).digest}


def test_a_version_is_trained_from_experience_in_s3(store, tmp_path: Path):  # noqa: ARG001  # it sets the variables
    uri = f"s3://{BUCKET}/learned from"
    episodes, _ = cartpole_logs(uri, (0.9,), 12)
    shop = Workshop(tmp_path)
    train = ("pipeline", "train", "--algorithm", "bc", "--epochs", "1", "--evaluation-episodes", "2", "--experience")
    done = shop.python(*train, uri, timeout_s=480)
    assert done.returncode == 0, done.stdout + done.stderr
    assert MARKER not in done.stdout + done.stderr
    with shop.inside():
        version = mlflow.MlflowClient().get_model_version("cartpole-ppo", "1")
        (used,) = mlflow.get_run(version.run_id).inputs.dataset_inputs
    assert version.tags["experience.digest"] == used.dataset.digest == episodes.digest
    assert f"{uri}/episodes/{MODEL}/{episodes.digest}" in used.dataset.source
    assert MARKER not in (tmp_path / "mlflow.db").read_bytes().decode(errors="ignore")


@pytest.mark.parametrize(
    ("uri", "changes"),
    [(f"s3://{BUCKET}/x", {"AWS_SECRET_ACCESS_KEY": "wrong"}), (f"s3://{BUCKET}-none/x", {})],
    ids=["wrong credentials", "no such bucket"],
)
def test_s3_that_refuses_is_named_in_one_line(store, tmp_path: Path, uri, changes):  # noqa: ARG001  # as above
    done = Workshop(tmp_path, changes).python("pipeline", "train", "--experience", uri)
    assert done.returncode == 1
    (line,) = [each for each in done.stderr.splitlines() if "Error" in each]
    assert uri in line
    assert "Traceback" not in done.stderr
