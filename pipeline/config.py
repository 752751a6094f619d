"""What a training run is told. Every default stands here, once."""

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, Self

from pipeline.errors import InvalidConfig, UnknownSetting


def _setting(default: Any, about: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": about, **more})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; PPO's carry the names that RLlib gives them.

    The help of each field is also that of its command-line option. The defaults solve CartPole-v1 in seconds.

    Raises:
        InvalidConfig: On a value outside its range.
    """

    registered_model_name: str = _setting("cartpole-ppo", "Name in the model registry.")
    env_id: str = _setting("CartPole-v1", "Gymnasium environment id, module:Id, or gym:Id of the legacy package gym.")
    env_kwargs: str = _setting("{}", "What the environment is made with, as a JSON object.")
    promote: bool = _setting(False, "Promote the version to Production at the end, if the gate lets it pass.")  # noqa: FBT003
    seed: int = _setting(0, "Seed of training; evaluations use seeds of their own.")
    max_env_steps: int = _setting(300_000, "Budget: environment steps after which training ends, solved or not.")
    target_return: float | None = _setting(
        None, "Mean greedy return at which training ends; the environment's own reward threshold if not given."
    )
    evaluation_interval: int = _setting(4096, "Environment steps between greedy evaluations.")
    patience: int = _setting(10, "Evaluations without a better one at which training ends, once the target is reached.")
    evaluation_episodes: int = _setting(100, "Episodes of each greedy evaluation.")
    checkpoint_interval_s: float = _setting(30.0, "Seconds between checkpoints that go to MLflow while training.")
    num_env_runners: int = _setting(0, "Remote processes that step environments; 0 steps them in this one.")
    num_envs_per_env_runner: int = _setting(16, "Environments that each of those steps as one vector.")
    num_learners: int = _setting(0, "Remote processes that learn; 0 learns in this one.")
    num_gpus_per_learner: float = _setting(0.0, "GPUs that each learner computes with.")
    train_batch_size_per_learner: int = _setting(1024, "Environment steps per PPO iteration, of each learner.")
    minibatch_size: int = _setting(512, "Environment steps per gradient step.")
    num_epochs: int = _setting(8, "Passes over each batch.")
    lr: float = _setting(5e-3, "Adam's learning rate at the start.")
    lr_final: float = _setting(3e-4, "Learning rate that it falls to, linearly, over lr_decay_steps.")
    lr_decay_steps: int = _setting(100_000, "Environment steps over which the learning rate falls.")
    gamma: float = _setting(0.98, "Discount of future rewards.")
    lambda_: float = _setting(0.9, "Lambda of generalized advantage estimation.")
    clip_param: float = _setting(0.2, "PPO's clip of the probability ratio.")
    vf_clip_param: float = _setting(float("inf"), "Clip of the squared value error.")
    vf_loss_coeff: float = _setting(0.5, "Weight of the value loss.")
    entropy_coeff: float = _setting(0.0, "Weight of the entropy bonus.")
    use_kl_loss: bool = _setting(False, "Add a penalty for moving away from the policy that sampled.")  # noqa: FBT003
    kl_coeff: float = _setting(0.2, "Its weight at the start.")
    kl_target: float = _setting(0.01, "The divergence that its weight is adapted to.")
    grad_clip: float = _setting(0.5, "Largest global norm of a gradient.")
    torch_num_threads: int = _setting(1, "Threads that torch computes with; more help only networks of many units.")
    fcnet_hiddens: str = _setting("64,64", "Units of each hidden layer, separated by commas.")
    fcnet_activation: str = _setting("tanh", "Activation of the hidden layers, as torch names it.")
    vf_share_layers: bool = _setting(False, "Let policy and value function share their hidden layers.")  # noqa: FBT003
    model_config: str = _setting(
        "{}", "More of RLlib's model settings, as JSON: convolutions, LSTM, and all; with rl_module, what that reads."
    )
    rl_module: str = _setting("default", "The RLModule, module:Class; the default takes every observation space.")
    wrapper: str = _setting(
        "none", "Wrapper of the environment, module:Class; several by commas, the innermost first.", repeatable=True
    )
    observation_filter: str = _setting("none", "What observations pass first: none, or mean-std, which is frozen.")
    value_estimates: bool = _setting(False, "Let the served policy estimate values, too; every answer pays for it.")  # noqa: FBT003

    def __post_init__(self) -> None:
        for name, minimum in _MINIMA.items():
            if not getattr(self, name) >= minimum:
                raise InvalidConfig(name, getattr(self, name), f"at least {minimum}")
        for name in ("lr", "lr_final", "grad_clip", "vf_clip_param"):
            if not getattr(self, name) > 0:
                raise InvalidConfig(name, getattr(self, name), "more than 0")
        for name in ("gamma", "lambda_"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidConfig(name, getattr(self, name), "between 0 and 1")
        if self.minibatch_size > self.train_batch_size_per_learner:
            expected = f"at most train_batch_size_per_learner ({self.train_batch_size_per_learner})"
            raise InvalidConfig("minibatch_size", self.minibatch_size, expected)
        self._check_texts()

    def _check_texts(self) -> None:
        for name, example in (("env_kwargs", '{"gravity": 9.8}'), ("model_config", '{"use_lstm": true}')):
            if not isinstance(_parsed(getattr(self, name)), dict):
                raise InvalidConfig(name, getattr(self, name), f"a JSON object, as {example}")
        if not self.registered_model_name or set(self.registered_model_name) & set("/:@'"):
            raise InvalidConfig("registered_model_name", self.registered_model_name, "a name without / : @ and '")
        if not all(units.strip().isdecimal() and int(units) > 0 for units in self.fcnet_hiddens.split(",")):
            raise InvalidConfig("fcnet_hiddens", self.fcnet_hiddens, "whole numbers separated by commas, as 64,64")
        if self.observation_filter not in ("none", "mean-std"):
            raise InvalidConfig("observation_filter", self.observation_filter, "none or mean-std")

    @property
    def hidden_units(self) -> list[int]:
        """`fcnet_hiddens` as RLlib takes it."""
        return [int(units) for units in self.fcnet_hiddens.split(",")]

    @property
    def model_settings(self) -> dict[str, Any]:
        """`model_config` as RLlib takes it."""
        settings: dict[str, Any] = json.loads(self.model_config)
        return settings

    @property
    def environment_kwargs(self) -> dict[str, Any]:
        """`env_kwargs` as Gymnasium takes them."""
        kwargs: dict[str, Any] = json.loads(self.env_kwargs)
        return kwargs

    @property
    def wrappers(self) -> tuple[str, ...]:
        """`wrapper` one by one."""
        return () if self.wrapper == "none" else tuple(name.strip() for name in self.wrapper.split(","))

    @property
    def num_cpus(self) -> int:
        """CPUs that RLlib asks Ray for: one per remote process, none for a learner that has a GPU."""
        return self.num_env_runners + (0 if self.num_gpus_per_learner else self.num_learners)

    @property
    def is_one_process(self) -> bool:
        """Whether everything is computed in the process that trains, so that RLlib needs no Ray."""
        return not self.num_env_runners and not self.num_learners and not self.num_gpus

    @property
    def num_gpus(self) -> float:
        """GPUs of all learners."""
        return max(1, self.num_learners) * self.num_gpus_per_learner

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The settings by name; those that are not given have their defaults.

        Raises:
            UnknownSetting: With the nearest known one.
            InvalidConfig: On a value of another type or outside its range.
        """
        return cls(**{name: convert(name, value) for name, value in settings.items()})

    def as_params(self) -> Mapping[str, Any]:
        """The settings by name, as MLflow logs them."""
        return asdict(self)


#: The smallest value of each setting that has one.
_MINIMA = {
    "seed": 0,
    "max_env_steps": 1,
    "evaluation_interval": 1,
    "patience": 1,
    "evaluation_episodes": 1,
    "checkpoint_interval_s": 0,
    "num_env_runners": 0,
    "num_envs_per_env_runner": 1,
    "num_learners": 0,
    "num_gpus_per_learner": 0,
    "train_batch_size_per_learner": 1,
    "minibatch_size": 1,
    "num_epochs": 1,
    "lr_decay_steps": 1,
    "torch_num_threads": 1,
    "clip_param": 0,
    "vf_loss_coeff": 0,
    "entropy_coeff": 0,
    "kl_coeff": 0,
    "kl_target": 0,
}

SETTINGS = fields(TrainConfig)

#: Names elsewhere whose letters are nearer to something else here.
_ALSO_CALLED = {"learning_rate": "lr", "num_workers": "num_env_runners"}


def convert(name: str, value: Any) -> Any:
    """A value as the setting of this name takes it.

    Raises:
        UnknownSetting: With the nearest known one.
        InvalidConfig: On a value of another type.
    """
    return _converted(setting(name), value)


def setting(name: str) -> "Field[Any]":
    """The setting of this name.

    Raises:
        UnknownSetting: With the nearest known one.
    """
    known = {each.name: each for each in SETTINGS}
    if name not in known:
        raise UnknownSetting(name, _ALSO_CALLED.get(name) or nearest_of(name, known))
    return known[name]


def nearest_of(name: str, known: Iterable[str]) -> str:
    """The known name whose letters are nearest."""
    return difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.0)[0]


def _converted(setting: "Field[Any]", value: Any) -> Any:
    """A value as its setting's type. YAML reads 3e-3 as text, and 1 where a float is meant as an int."""
    if setting.default is None:
        return None if value in (None, "auto") else _number(setting.name, value, float)
    kind = type(setting.default)
    if isinstance(value, Mapping) and setting.name in ("env_kwargs", "model_config"):
        return json.dumps(value, default=str)
    if kind in (int, float):
        return _number(setting.name, value, kind)
    if not isinstance(value, kind):
        raise InvalidConfig(setting.name, value, "true or false" if kind is bool else "text")
    return value


def _parsed(text: str) -> Any:
    """JSON's value; None for what is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _number(name: str, value: Any, kind: type[int] | type[float]) -> int | float:
    try:
        number = float(value)
        if not isinstance(value, bool) and (kind is float or number.is_integer()):
            return kind(number)
    except (TypeError, ValueError):
        pass
    raise InvalidConfig(name, value, "a whole number" if kind is int else "a number")
