"""A target is named as MLflow accepts it, which its private functions tell."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_model_alias_name, _validate_model_alias_name_reserved

from pipeline.registry.errors import InvalidAlias
from pipeline.registry.target import Target


def is_accepted_by_mlflow(alias):
    try:
        _validate_model_alias_name(alias)
        _validate_model_alias_name_reserved(alias)
    except MlflowException:
        return False
    return True


VALID = ["champion", "Champion-2_b", "v", "version2", "vv2", "latest2", "é", "2"]
INVALID = ["", " ", "a b", "a.b", "a/b", "a@b", "latest", "Latest", "v2", "V10", "'", "x" * 300]


@pytest.mark.parametrize("alias", VALID + INVALID)
def test_an_alias_is_valid_if_mlflow_accepts_it(alias):
    if is_accepted_by_mlflow(alias):
        assert Target.of("cartpole-ppo", "Production", alias).name == alias
    else:
        with pytest.raises(InvalidAlias, match="cannot be an alias, expected letters, digits, - and _"):
            Target.of("cartpole-ppo", "Production", alias)
