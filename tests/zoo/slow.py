"""An environment whose steps take 2 ms."""

import time
from typing import Any

from tests.zoo.base import E


class Slow(E):
    """Sleeps in each step."""

    def step(self, action: Any) -> tuple[Any, ...]:
        time.sleep(0.002)
        return super().step(action)
