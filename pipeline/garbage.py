"""How often Python looks for garbage."""

import gc


def collect_rarely() -> None:
    """Seldom: torch, RLlib and MLflow make 700,000 objects that stay.

    By Python's defaults, looking among them for garbage takes a third of the time of their imports.
    """
    gc.set_threshold(100_000, 50, 100)
