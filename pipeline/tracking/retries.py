"""How often MLflow repeats a request that fails: by its own default, for minutes."""

import contextlib
import os
from collections.abc import Iterator

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


@contextlib.contextmanager
def few() -> Iterator[None]:
    """Within, MLflow repeats a request once, unless its own variable says how often."""
    if _RETRIES in os.environ:
        yield
        return
    os.environ[_RETRIES] = "1"
    try:
        yield
    finally:
        os.environ.pop(_RETRIES, None)
