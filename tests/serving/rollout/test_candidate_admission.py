from pathlib import Path

import pytest
from onnxruntime import get_available_providers

from serving.arguments import Arguments
from serving.policy.errors import ProviderUnavailable
from serving.registry import registry
from serving.registry.access import DirectRegistry
from serving.registry.last_known_good import LastKnownGood
from serving.rollout import candidate_admission as admission
from serving.rollout.candidate_admission import Admission
from serving.rollout.errors import SpacesDiffer
from tests.serving.asking import served
from tests.serving.policies import CONTRARY_BUNDLE, STEERING_BUNDLE
from tests.serving.store import Store


def admission_of(store: Store, cache: Path, name: str) -> Admission:
    uri = f"models:/{name}/latest"
    arguments = Arguments(model_uri=uri, cache_dir=str(cache))
    return Admission(DirectRegistry(store.uri), arguments, LastKnownGood(cache, store.uri, uri))


def test_only_files_that_passed_their_trial_here_skip_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials: list[object] = []
    monkeypatch.setattr(admission, "run_trial", lambda bundle, *_, **__: trials.append(bundle))
    first = registry.resolve(f"models:/tried/{store.register('tried')}")
    second = registry.resolve(f"models:/tried/{store.register('tried', CONTRARY_BUNDLE)}")
    admitting = admission_of(store, tmp_path, "tried")
    for version in (first, first, second):
        admitting.admit(version)
    assert len(trials) == 2


def test_the_admitted_version_is_the_last_known_good_one(store: Store, tmp_path: Path) -> None:
    admitting = admission_of(store, tmp_path, "known-good")
    assert admitting.last_known_good() is None
    version = registry.resolve(f"models:/known-good/{store.register('known-good')}")
    admitting.admit(version)
    found = admitting.last_known_good()
    assert found is not None
    assert found.version == version


def test_a_version_with_other_spaces_is_rejected_and_not_recorded(store: Store, tmp_path: Path) -> None:
    version = registry.resolve(f"models:/other-spaces/{store.register('other-spaces', STEERING_BUNDLE)}")
    admitting = admission_of(store, tmp_path, "other-spaces")
    with pytest.raises(SpacesDiffer) as caught:
        admitting.admit(version, served())
    assert str(caught.value).endswith("Clients would break: restart the server to serve it, or set allow_space_change")
    assert admitting.last_known_good() is None
    admitting.arguments = admitting.arguments.model_copy(update={"allow_space_change": True})
    assert admitting.admit(version, served()).version == version


@pytest.mark.skipif("CUDAExecutionProvider" in get_available_providers(), reason="onnxruntime-gpu is installed")
def test_the_trial_and_the_replica_use_the_execution_provider(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried_on: list[str] = []
    monkeypatch.setattr(admission, "run_trial", lambda _, conditions, __: tried_on.append(conditions.provider))
    version = registry.resolve(f"models:/on-cuda/{store.register('on-cuda')}")
    admitting = admission_of(store, tmp_path, "on-cuda")
    admitting.arguments = admitting.arguments.model_copy(update={"execution_provider": "cuda"})
    with pytest.raises(ProviderUnavailable):
        admitting.admit(version)
    assert tried_on == ["cuda"]
    assert admitting.last_known_good() is None
