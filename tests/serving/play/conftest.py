from collections.abc import Iterator

import pytest

from tests.serving.play.viewer import environments
from tests.workshop import await_true


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Await the end of the sessions' processes, which the next test would count: a thread reaps a killed one."""
    yield
    await_true(lambda: not environments(), "the environments' processes are gone", 10)
