"""An evaluation plays the registered graph, and records the returns in a run and on the version."""

import mlflow

from pipeline.registry.evaluate_version import evaluate
from tests.serving.policies import CARTPOLE_BUNDLE
from tests.serving.store import Store


def test_the_returns_are_recorded_in_the_run_and_on_the_version(store, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(store / "cache"))
    Store(mlflow.get_tracking_uri(), store).register("cartpole-ppo", CARTPOLE_BUNDLE)
    recorded = evaluate("models:/cartpole-ppo/latest", episodes=3, seed=5)
    assert (recorded.name, recorded.version, recorded.evaluation.first_seed) == ("cartpole-ppo", 1, 5)
    assert recorded.evaluation.returns == (500.0, 500.0, 500.0)
    run = mlflow.get_run(recorded.run_id)
    assert run.info.run_name == "evaluate cartpole-ppo 1"
    assert run.data.params["episodes"] == "3"
    assert mlflow.MlflowClient().get_model_version("cartpole-ppo", "1").tags["evaluation.return_mean"] == "500"
