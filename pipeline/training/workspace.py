"""The working directory of a training, and its temporary files."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.bundle.assemble import CHECKPOINT_DIRECTORY
from pipeline.tracking.run import RECORDING


@dataclass(frozen=True)
class Workspace:
    """The files of one training, below the directory `root`."""

    root: Path

    @classmethod
    def create(cls, root: Path) -> Self:
        """Return a workspace with an empty bundle directory below `root`."""
        workspace = cls(root)
        workspace.bundle.mkdir(parents=True)
        return workspace

    @classmethod
    @contextlib.contextmanager
    def temporary(cls) -> Iterator[Self]:
        """Yield an empty workspace, which is deleted at the end of the block."""
        with tempfile.TemporaryDirectory(prefix="cartpole-ppo-") as root:
            yield cls.create(Path(root))

    @property
    def bundle(self) -> Path:
        """Everything that a checkpoint in MLflow holds; the export adds the graph, which completes the bundle."""
        return self.root / "bundle"

    @property
    def latest(self) -> Path:
        """The newest RLlib checkpoint, a directory."""
        return self.bundle / "latest"

    @property
    def best(self) -> Path:
        """The RLlib checkpoint of the best policy, a directory."""
        return self.bundle / CHECKPOINT_DIRECTORY

    @property
    def archive(self) -> Path:
        """The packed bundle directory, a file."""
        return self.root / "checkpoint.tar"

    @property
    def recording(self) -> Path:
        """The recording of one episode, an animated GIF."""
        return self.root / RECORDING
