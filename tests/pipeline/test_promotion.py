"""One version stands in a stage; the others are archived."""

import mlflow
import pytest

from pipeline import promotion, tables
from serving.errors import ModelUnknown, VersionMissing


@pytest.fixture
def three_versions(store):
    client = mlflow.MlflowClient()
    client.create_registered_model("cartpole-ppo")
    for value in ("10", "250.5", "500"):
        client.create_model_version("cartpole-ppo", f"{store}/model", tags={"evaluation.return_mean": value})


def stages():
    return {row.version: row.stage for row in promotion.versions("cartpole-ppo")}


@pytest.mark.usefixtures("three_versions")
def test_a_promotion_archives_what_stood_in_the_stage():
    promotion.promote("cartpole-ppo", 3, "Production")
    promotion.promote("cartpole-ppo", 1, "Production")
    assert stages() == {1: "Production", 2: "None", 3: "Archived"}


@pytest.mark.usefixtures("three_versions")
def test_a_promotion_leaves_other_stages_alone():
    promotion.promote("cartpole-ppo", 3, "Production")
    promotion.promote("cartpole-ppo", 2, "Staging")
    assert stages() == {1: "None", 2: "Staging", 3: "Production"}


@pytest.mark.usefixtures("three_versions")
def test_a_version_that_is_not_there_changes_nothing():
    promotion.promote("cartpole-ppo", 3, "Production")
    with pytest.raises(VersionMissing) as caught:
        promotion.promote("cartpole-ppo", 9, "Production")
    assert str(caught.value).startswith("No version of 'cartpole-ppo' has the number 9.")
    assert stages()[3] == "Production"


@pytest.mark.usefixtures("store")
def test_an_unknown_model_is_named():
    with pytest.raises(ModelUnknown, match="No model 'nothing' is registered"):
        promotion.versions("nothing")


@pytest.mark.usefixtures("three_versions")
def test_the_table_shows_version_stage_aliases_return_and_age(capsys):
    mlflow.MlflowClient().set_registered_model_alias("cartpole-ppo", "champion", "2")
    promotion.promote("cartpole-ppo", 3, "Production")
    tables.versions_table(promotion.versions("cartpole-ppo"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["version", "stage", "aliases", "return", "age"]
    assert [line[:4] for line in lines[1:]] == [
        ["3", "Production", "-", "500.0"],
        ["2", "-", "champion", "250.5"],
        ["1", "-", "-", "10.0"],
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 seconds"), (1, "1 second"), (3599, "59 minutes"), (90000, "1 day"), (1e6, "11 days")]
)
def test_ages_are_in_their_largest_unit(seconds, text):
    assert tables.age(seconds) == text
