"""The settings of learning from recorded experience: their types, defaults, bounds and help, each in one place."""

from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, Self

from pipeline.config import TrainConfig
from pipeline.errors import InvalidConfig
from pipeline.rllib.errors import RecurrentUnsupported

BC, MARWIL = "bc", "marwil"
KEEP, DROP, REFUSE = "keep", "drop", "refuse"
PPO, NOTHING = "ppo", "none"


def _setting(default: Any, about: str, *choices: str) -> Any:
    return field(default=default, metadata={"help": about, "choices": choices})


@dataclass(frozen=True)
class LearningSettings:
    """The settings of a training that learns from recorded experience, besides those of `TrainConfig`.

    `gamma`, `minibatch_size`, `reward_scale`, `grad_clip`, `patience` and the evaluations are those of `TrainConfig`.

    Raises:
        InvalidConfig: On a value outside its range.
    """

    experience: str = _setting("", "Directory or S3 prefix that servers record to: learn from its whole episodes.")
    experience_model: str = _setting(
        "auto", "The model whose experience it is; auto is that of --from, or the only one."
    )
    experience_versions: str = _setting(
        "all", "Versions to learn from, such as 3,4; all takes those whose arrays are those of the newest one."
    )
    unreported: str = _setting(
        REFUSE, "What becomes of episodes with unreported rewards: drop, keep (the default reward), or refuse.",
        REFUSE, KEEP, DROP,
    )  # fmt: skip
    algorithm: str = _setting(
        MARWIL, "bc imitates all recorded actions, marwil those more that were followed by more reward.", BC, MARWIL
    )
    then: str = _setting(NOTHING, "ppo: train on in the environment with the policy that was found.", NOTHING, PPO)
    scratch: bool = _setting(default=False, about="Take only settings from the policy of --from, not its weights.")
    epochs: int = _setting(100, "Budget: passes over the episodes.")
    epochs_per_evaluation: int = _setting(5, "Passes between greedy evaluations.")
    beta: float = _setting(1.0, "How much marwil prefers actions with more reward, from 0 (bc) to 1.")
    offline_lr: float = _setting(1e-3, "Adam's learning rate while it learns from experience.")

    def __post_init__(self) -> None:
        are_versions = bool(self.versions) or self.experience_versions == "all"
        for name, is_valid, expected in (
            ("experience_versions", are_versions, "version numbers such as 3,4, or all"),
            ("unreported", self.unreported in (REFUSE, KEEP, DROP), "refuse, keep or drop"),
            ("algorithm", self.algorithm in (BC, MARWIL), "bc or marwil"),
            ("then", self.then in (NOTHING, PPO), "none or ppo"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("epochs_per_evaluation", self.epochs_per_evaluation >= 1, "at least 1"),
            ("beta", 0 <= self.beta <= 1, "between 0 and 1"),
            ("offline_lr", self.offline_lr > 0, "more than 0"),
        ):
            if not is_valid:
                raise InvalidConfig(name, getattr(self, name), expected)

    @property
    def versions(self) -> frozenset[int] | None:
        """The versions whose episodes are learned from; None for all."""
        words = [word.strip() for word in self.experience_versions.split(",")]
        return frozenset(map(int, words)) if all(map(str.isdecimal, words)) else None

    @property
    def uses_rewards(self) -> bool:
        """Whether rewards and ends of episodes matter."""
        return self.algorithm == MARWIL

    @property
    def weight_of_advantages(self) -> float:
        """`beta`; 0 for behavior cloning."""
        return self.beta if self.uses_rewards else 0.0

    @property
    def title(self) -> str:
        """The name of the algorithms, for figures and the model card."""
        name = "MARWIL" if self.uses_rewards else "Behavior cloning"
        return f"{name}, then PPO" if self.then == PPO else name

    def check(self, config: TrainConfig) -> None:
        """Raise RecurrentUnsupported if the policy has a memory."""
        if config.model_settings.get("use_lstm"):
            raise RecurrentUnsupported

    def as_params(self) -> dict[str, Any]:
        """Return the settings by name."""
        return asdict(self)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Return the settings that `as_params` returned."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in settings.items() if name in known})


SETTINGS: tuple["Field[Any]", ...] = fields(LearningSettings)
