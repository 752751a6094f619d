"""The loop of a training that learns from recorded episodes first, and then with PPO if its settings say so."""

import dataclasses
import json
from pathlib import Path

from pipeline.evaluation.trend import Trend
from pipeline.learning.settings import PPO, LearningSettings
from pipeline.rllib.offline.trainer import OfflineTrainer
from pipeline.training.evaluator import BestPolicy
from pipeline.training.loop import Kind, Loop
from pipeline.training.loop_state import LoopState
from pipeline.training.run import Parts
from pipeline.training.workspace import Workspace


class LearningLoop:
    """Finds the best policy in one or two phases, each of which is a `Loop` with its own budget.

    PPO starts from the best policy of the first phase. Its own policies replace it only if they are better.

    Args:
        parts: What a loop works with.
        trainer: The trainer of the parts.
        settings: The settings of the first phase.
        steps: The recorded steps of all episodes.
    """

    def __init__(self, parts: Parts, trainer: OfflineTrainer, settings: LearningSettings, steps: int) -> None:
        self._parts, self._trainer, self._settings = parts, trainer, settings
        offline = dataclasses.replace(
            parts.config,
            max_env_steps=settings.epochs * steps,
            evaluation_interval=settings.epochs_per_evaluation * steps,
        )
        kind = Kind(settings.title, "Learning from experience for", "recorded steps", gives_up=True)
        self._loop = self._make(dataclasses.replace(parts, config=offline), kind)
        self._is_offline = True

    @property
    def trend(self) -> Trend:
        """What the returns have done by now."""
        return self._loop.trend

    def resume(self) -> None:
        """Continue from the checkpoint in the workspace, in the phase that it was saved in."""
        before = steps_before_ppo(self._parts.workspace)
        if before is not None:
            self._begin_ppo(before)
        self._loop.resume()

    def run(self) -> BestPolicy:
        """Train in all phases that are left, and return the best policy. Raises as `Loop.run`."""
        if self._is_offline and self._settings.then == PPO:
            state = self._loop.train()
            self._begin_ppo(state.env_steps, state)
            self._trainer.restore(self._parts.workspace.best, state.env_steps, ())
            _phase_file(self._parts.workspace).write_text(json.dumps({"steps_before_ppo": state.env_steps}))
        return self._loop.run()

    def _begin_ppo(self, before: int, state: LoopState | None = None) -> None:
        config = self._parts.config
        if state is not None:
            state.next_evaluation, state.stale = before + config.evaluation_interval, 0
        later = dataclasses.replace(config, max_env_steps=before + config.max_env_steps)
        kind = Kind(self._settings.title, "Training on", "steps, recorded ones included")
        self._trainer.begin_ppo(before)
        self._loop = self._make(dataclasses.replace(self._parts, config=later), kind, state)
        self._is_offline = False

    def _make(self, parts: Parts, kind: Kind, state: LoopState | None = None) -> Loop:
        log, workspace, progress = parts.log, parts.workspace, parts.progress
        return Loop(parts.config, parts.trainer, parts.evaluator, log, workspace, progress, kind, state)


def steps_before_ppo(workspace: Workspace) -> int | None:
    """Return how many recorded steps were learned from before the checkpoint in a workspace became one of PPO."""
    file = _phase_file(workspace)
    return int(json.loads(file.read_text())["steps_before_ppo"]) if file.is_file() else None


def _phase_file(workspace: Workspace) -> Path:
    return workspace.bundle / "learning.json"
