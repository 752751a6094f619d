"""Evaluates the policies of a training, exports the best one, and records an episode of it."""

import contextlib
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.bundle import assemble as bundle
from pipeline.config import TrainConfig
from pipeline.environments.make import Environment
from pipeline.evaluation import evaluation, recording
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.player import Player
from pipeline.evaluation.recording import Recording
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.reference.reference import ReferenceRecorder
from pipeline.training.worker_process import WorkerProcess
from pipeline.training.workspace import Workspace

#: Selection, confirmation and final evaluation use disjoint seeds.
SELECTION_SEED = 1_000_000
FINAL_SEED = 2_000_000
CONFIRMATION_SEED = 1_000_000_000

#: Seconds that a recording may take after the final evaluation.
_RECORDING_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class BestPolicy:
    """The best policy of a training, exported and evaluated.

    Attributes:
        evaluation: The final evaluation of the bundle, as it will be served.
        step: Environment steps after which the policy was found.
        recording: The pending recording of the first final episode.
    """

    evaluation: Evaluation
    step: int
    recording: Future[Any]

    def recorded(self, file: Path, note: Callable[[str], None]) -> Path | None:
        """Wait for the recording and return its file; None if there is none, with a note unless none is expected."""
        try:
            result = self.recording.result(_RECORDING_TIMEOUT_S)
        except BrokenExecutor:
            result = Recording(is_written=False, reason="the process that drew it died")
        except TimeoutError:
            result = Recording(is_written=False, reason=f"it was not drawn within {_RECORDING_TIMEOUT_S:.0f} s")
        if result.reason:
            note(f"No recording of an episode: {result.reason}")
        return file if result else None


@dataclass
class Evaluator:
    """Plays greedy episodes and exports the best policy, partly in the worker process.

    Attributes:
        config: The settings of the training.
        environment: Where episodes are played.
        workspace: Holds the best checkpoint, and receives the bundle and the recording.
        worker: Runs half of each evaluation, the export and the recording, if it was started.
        preflight: The pending export of an untrained policy, if there is one.
        released: Returns a context manager in which training holds no environment, where only one can exist.
    """

    config: TrainConfig
    environment: Environment
    workspace: Workspace
    worker: WorkerProcess
    preflight: Future[Any] | None = None
    released: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

    @property
    def target_return(self) -> float | None:
        """The mean greedy return at which training may end: the configured one, else the environment's threshold."""
        configured = self.config.target_return
        return self.environment.reward_threshold if configured is None else configured

    def evaluate(self, policy: ExportablePolicy, first_seed: int) -> Evaluation:
        """Play the episodes of one greedy evaluation."""
        player, episodes = Player.exportable(policy), self.config.evaluation_episodes
        worker = self.worker if self.worker.is_started else None
        with self.released():
            return evaluation.play_in_halves(worker, player, self.environment, episodes, first_seed)

    def check_preflight(self) -> None:
        """Raise the error of the preflight export, if it has ended with one.

        Raises:
            ExportFailed: If policies of this configuration cannot be exported.
        """
        if self.preflight is not None and self.preflight.done():
            self.preflight.result()

    def export(self) -> None:
        """Complete the bundle of the best checkpoint.

        Raises:
            ExportFailed, ExportDiffers: If the policy cannot be served.
        """
        if self.preflight is not None:
            self.preflight.result()
        arguments = self.workspace.bundle, self.environment, self.config.value_estimates
        with self.released():
            self.worker.submit(bundle.assemble, *arguments).result()

    def evaluate_bundle(self, step: int, first_seed: int) -> BestPolicy:
        """Play the final evaluation of the bundle, while the worker process records an episode.

        The observations become the bundle's reference.json.
        """
        directory, file = self.workspace.bundle, self.workspace.recording
        recorded = self.worker.submit_optional(recording.record, directory, self.environment, first_seed, file)
        player = Player.served(bundle.load(directory))
        reference = ReferenceRecorder(player.observation_space)
        with self.released():
            result = evaluation.play(player, self.environment, self.config.evaluation_episodes, first_seed, reference)
        reference.write(directory)
        return BestPolicy(result, step, recorded)
