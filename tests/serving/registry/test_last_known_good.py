import os
from pathlib import Path

from serving.registry import registry
from serving.registry.cache import prune
from serving.registry.last_known_good import LastKnownGood
from tests.serving.policies import CARTPOLE_BUNDLE, CONTRARY_BUNDLE, Store

URI = "models:/kept/Production"


def test_what_is_remembered_is_recalled_by_uri_and_registry(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/recalled/{store.register('recalled')}")
    LastKnownGood(tmp_path, store.uri, URI).remember(version)
    assert LastKnownGood(tmp_path, store.uri, URI).recall() == version
    assert LastKnownGood(tmp_path, "http://another", URI).recall() is None
    assert LastKnownGood(tmp_path, store.uri, "models:/kept/Staging").recall() is None


def test_a_damaged_record_is_none(store: Store, tmp_path: Path) -> None:
    good = LastKnownGood(tmp_path, store.uri, URI)
    good.remember(registry.resolve(f"models:/scratched/{store.register('scratched')}"))
    next((tmp_path / "good").iterdir()).write_text('{"name"')
    assert good.recall() is None


def test_the_cache_keeps_what_is_good_and_the_newest_within_its_bound(store: Store, tmp_path: Path) -> None:
    numbers = [store.register("bounded", bundle) for bundle in (CARTPOLE_BUNDLE, CONTRARY_BUNDLE, CARTPOLE_BUNDLE)]
    versions = [registry.resolve(f"models:/bounded/{number}") for number in numbers]
    for age, version in enumerate(versions):
        registry.fetch(version, tmp_path)
        (place,) = tmp_path.glob(f"*/*/{version.version}-*")
        os.utime(place, (1000 + age, 1000 + age))
    good = LastKnownGood(tmp_path, store.uri, URI)
    good.remember(versions[0])

    def held() -> set[str]:
        return {place.name.split("-")[0] for place in tmp_path.glob("*/*/*-*")}

    size = sum(file.stat().st_size for file in next(iter(tmp_path.glob("*/*/1-*"))).iterdir())
    good.bound(2 * size + 100)
    assert held() == {"1", "3"}
    good.bound(0)
    assert held() == {"1"}


def test_what_a_killed_process_left_half_made_goes(tmp_path: Path) -> None:
    abandoned, recent = tmp_path / "r/m/.fetching-a", tmp_path / "r/m/.fetching-b"
    for directory in (abandoned, recent):
        directory.mkdir(parents=True)
    os.utime(abandoned, (1000, 1000))
    prune(tmp_path, 0, set())
    assert (abandoned.exists(), recent.exists()) == (False, True)
