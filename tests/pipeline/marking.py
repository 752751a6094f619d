"""A pickle that shows whether it was read."""

import pickle
from pathlib import Path


class _Marker:
    """Creates a file when its pickle is read."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self):
        return Path.touch, (self._file,)


def pickle_that_creates(file: Path) -> bytes:
    """Return a pickle that creates a file when it is read."""
    return pickle.dumps(_Marker(file))
