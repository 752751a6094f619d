"""Experience in S3: whole episodes, statistics and forgetting through a real server."""

import io

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
from tests.stores.servers import BUCKET, S3

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
