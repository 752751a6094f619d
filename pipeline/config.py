"""The settings of a training run: their types, defaults, bounds and help, each in one place."""

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from functools import partial
from typing import Any, Self

from pipeline.errors import InvalidConfig, UnknownSetting


def _setting(
    default: Any,
    about: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    positive: bool = False,
    searchable: bool = True,
    repeatable: bool = False,
) -> Any:
    """Declare a setting.

    Args:
        default: Its default, whose type is that of the setting; None for an optional number.
        about: The help of its option.
        minimum: The smallest valid value.
        maximum: The largest valid value.
        positive: Whether the value has to be above 0.
        searchable: Whether the trials of a search may differ in it. False for settings that make their returns or
            their work incomparable, or that choose processes and devices.
        repeatable: Whether the option may be given several times; the values are joined by commas.
    """
    bounds = {"minimum": minimum, "maximum": maximum, "positive": positive}
    return field(
        default=default, metadata={"help": about, "searchable": searchable, "repeatable": repeatable, **bounds}
    )


#: Declares a setting that all trials of a search share.
_shared = partial(_setting, searchable=False)


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training run; those of PPO have RLlib's names.

    The defaults solve CartPole-v1 in seconds. The commands take the settings that `BY_ENVIRONMENT` names from
    `pipeline.settings`, which knows the environment.

    Raises:
        InvalidConfig: On a value outside its range.
    """

    registered_model_name: str = _shared("cartpole-ppo", "Name of the registered model.")
    env_id: str = _shared(
        "CartPole-v1", "Gymnasium id; module:Id imports a module, gym:Id is of the legacy package gym."
    )
    env_kwargs: str = _shared("{}", "Keyword arguments of the environment, as a JSON object.")
    promote: bool = _shared(default=False, about="Promote the version to Production at the end, if it passes the gate.")
    seed: int = _shared(0, "Seed of training; evaluations have their own seeds.", minimum=0)
    max_env_steps: int = _shared(
        300_000, "Budget: environment steps after which training ends, solved or not.", minimum=1
    )
    target_return: float | None = _shared(
        None, "Mean greedy return to reach; by default the environment's reward threshold."
    )
    evaluation_interval: int = _shared(4096, "Environment steps between greedy evaluations.", minimum=1)
    patience: int = _shared(
        10, "Evaluations without improvement after which training ends, once the target is reached.", minimum=1
    )
    evaluation_episodes: int = _shared(100, "Episodes of each greedy evaluation.", minimum=1)
    max_episode_steps: int = _shared(
        5000,
        "Steps after which evaluations cut an episode, unless the environment has a longer time limit.",
        minimum=1,
    )
    checkpoint_interval_s: float = _shared(30.0, "Seconds between uploads of checkpoints.", minimum=0)
    num_env_runners: int = _shared(0, "Processes that step environments; 0 uses the main process.", minimum=0)
    num_envs_per_env_runner: int = _setting(16, "Environments that each process steps at once.", minimum=1)
    num_learners: int = _shared(0, "Remote processes that compute gradients; 0 uses the main process.", minimum=0)
    num_gpus_per_learner: float = _shared(0.0, "GPUs of each learner; 0 learns on the CPU.", minimum=0)
    train_batch_size_per_learner: int = _setting(1024, "Environment steps per PPO iteration and learner.", minimum=1)
    minibatch_size: int = _setting(512, "Environment steps per gradient step.", minimum=1)
    num_epochs: int = _setting(8, "Passes over each batch.", minimum=1)
    lr: float = _setting(5e-3, "Adam's learning rate at the start.", positive=True)
    lr_final: float = _setting(3e-4, "Learning rate at the end of the linear schedule.", positive=True)
    lr_decay_steps: int = _setting(100_000, "Environment steps until the learning rate reaches lr_final.", minimum=1)
    gamma: float = _setting(0.98, "Discount of future rewards.", minimum=0, maximum=1)
    lambda_: float = _setting(0.9, "Lambda of generalized advantage estimation.", minimum=0, maximum=1)
    clip_param: float = _setting(0.2, "PPO's clipping range of the probability ratio.", minimum=0)
    vf_clip_param: float = _setting(float("inf"), "Clip of the squared value error.", positive=True)
    vf_loss_coeff: float = _setting(0.5, "Weight of the value loss.", minimum=0)
    entropy_coeff: float = _setting(0.0, "Weight of the entropy bonus.", minimum=0)
    reward_scale: float = _setting(
        1.0,
        "Factor of the rewards that PPO learns from; returns in metrics and evaluations are not scaled.",
        positive=True,
    )
    noise_correlation: float = _setting(
        0.0,
        "Correlation of the exploration noise of successive steps, for continuous actions; 0 is independent noise.",
        minimum=0,
        maximum=0.999,
    )
    use_kl_loss: bool = _setting(default=False, about="Penalize the KL divergence from the policy that sampled.")
    kl_coeff: float = _setting(0.2, "Initial weight of the KL penalty.", minimum=0)
    kl_target: float = _setting(0.01, "KL divergence that the weight of the penalty is adapted to.", minimum=0)
    grad_clip: float = _setting(0.5, "Largest global norm of a gradient.", positive=True)
    torch_num_threads: int = _shared(1, "Threads of torch; only large networks profit from more.", minimum=1)
    fcnet_hiddens: str = _setting("64,64", "Units of each hidden layer, separated by commas.")
    fcnet_activation: str = _setting("tanh", "Activation of the hidden layers, as torch names it.")
    vf_share_layers: bool = _setting(default=False, about="Let policy and value function share their hidden layers.")
    model_config: str = _setting(
        "{}", "RLlib's other model settings (convolutions, LSTM) or those of rl_module, as JSON."
    )
    rl_module: str = _setting("default", "RLModule, as module:Class; the default supports every space.")
    wrapper: str = _setting(
        "none", "Wrapper, as module:Class; several separated by commas, the innermost first.", repeatable=True
    )
    observation_filter: str = _setting(
        "none", "Filter of observations: none, or mean-std, frozen in the served policy."
    )
    sampling: str = _shared(
        "arrays", "How environments are stepped: arrays (all at once), or rllib (its own loop, slower)."
    )
    learning: str = _shared(
        "arrays", "How minibatches are learned: arrays (shuffled, of equal sizes), or rllib (its own loop, slower)."
    )
    value_estimates: bool = _setting(
        default=False, about="Let the served policy return value estimates; responses are slower."
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            _check_bounds(each, getattr(self, each.name))
        if self.minibatch_size > self.train_batch_size_per_learner:
            expected = f"at most train_batch_size_per_learner ({self.train_batch_size_per_learner})"
            raise InvalidConfig("minibatch_size", self.minibatch_size, expected)
        self._check_texts()

    def _check_texts(self) -> None:
        for name, example in (("env_kwargs", '{"gravity": 9.8}'), ("model_config", '{"use_lstm": true}')):
            if not isinstance(_parsed(getattr(self, name)), dict):
                raise InvalidConfig(name, getattr(self, name), f"a JSON object, such as {example}")
        if not self.registered_model_name or set(self.registered_model_name) & set("/:@'"):
            raise InvalidConfig("registered_model_name", self.registered_model_name, "a name without / : @ and '")
        if not all(units.strip().isdecimal() and int(units) > 0 for units in self.fcnet_hiddens.split(",")):
            raise InvalidConfig("fcnet_hiddens", self.fcnet_hiddens, "whole numbers separated by commas, such as 64,64")
        if self.observation_filter not in ("none", "mean-std"):
            raise InvalidConfig("observation_filter", self.observation_filter, "none or mean-std")
        for name in ("sampling", "learning"):
            if getattr(self, name) not in ("arrays", "rllib"):
                raise InvalidConfig(name, getattr(self, name), "arrays or rllib")

    @property
    def hidden_units(self) -> list[int]:
        """The units of each hidden layer."""
        return [int(units) for units in self.fcnet_hiddens.split(",")]

    @property
    def model_settings(self) -> dict[str, Any]:
        """The parsed `model_config`."""
        return dict(json.loads(self.model_config))

    @property
    def environment_kwargs(self) -> dict[str, Any]:
        """The parsed `env_kwargs`."""
        return dict(json.loads(self.env_kwargs))

    @property
    def wrappers(self) -> tuple[str, ...]:
        """The names of the wrappers, the innermost first."""
        return () if self.wrapper == "none" else tuple(name.strip() for name in self.wrapper.split(","))

    @property
    def num_cpus(self) -> int:
        """CPUs that RLlib requests from Ray: one per remote process, none for a learner that has a GPU."""
        return self.num_env_runners + (0 if self.num_gpus_per_learner else self.num_learners)

    @property
    def is_one_process(self) -> bool:
        """Whether everything is computed in the main process on the CPU, so that RLlib needs no Ray."""
        return not self.num_env_runners and not self.num_learners and not self.num_gpus

    @property
    def num_gpus(self) -> float:
        """The GPUs of all learners."""
        return max(1, self.num_learners) * self.num_gpus_per_learner

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Return a configuration from settings by name; the others have their defaults.

        Raises:
            UnknownSetting: If there is no such setting; the error names the nearest known one.
            InvalidConfig: On a value of another type or outside its range.
        """
        return cls(**{name: convert(name, value) for name, value in settings.items()})

    def as_params(self) -> dict[str, Any]:
        """Return the settings by name."""
        return asdict(self)

    def changed(self, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the settings by name that differ from those of `base`, or else from their defaults."""
        defaults = {each.name: each.default for each in fields(self)} | dict(base or {})
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    def as_file(self) -> dict[str, Any]:
        """Return the settings by name from which `train --config` makes the same, whatever it would choose itself."""
        changed = self.changed()
        return {name: value for name, value in asdict(self).items() if name in changed or name in BY_ENVIRONMENT}


SETTINGS = fields(TrainConfig)

#: The settings that are chosen for the environment where they are not given.
BY_ENVIRONMENT = (
    *("registered_model_name", "max_env_steps", "evaluation_interval"),
    *("num_envs_per_env_runner", "train_batch_size_per_learner", "minibatch_size", "num_epochs"),
    *("lr", "lr_final", "lr_decay_steps", "gamma", "lambda_", "entropy_coeff"),
    *("reward_scale", "noise_correlation", "observation_filter"),
)

#: The settings that are chosen for the machine where they are not given, or `auto`.
BY_MACHINE = ("num_env_runners", "num_gpus_per_learner", "torch_num_threads")
#: Names of settings in other libraries, whose spelling is nearest to an unrelated setting here.
_ALSO_CALLED = {"learning_rate": "lr", "num_workers": "num_env_runners"}


def convert(name: str, value: Any) -> Any:
    """Return a value from YAML, which reads 3e-3 as text and 1 as an int, converted to the type of a setting.

    Raises:
        UnknownSetting: If there is no such setting; the error names the nearest known one.
        InvalidConfig: On a value of another type.
    """
    default = setting(name).default
    if default is None:
        return None if value in (None, "auto") else _number(name, value, float)
    if isinstance(value, Mapping) and name in ("env_kwargs", "model_config"):
        return json.dumps(value, default=str)
    kind = type(default)
    if kind in (int, float):
        return _number(name, value, kind)
    if not isinstance(value, kind):
        raise InvalidConfig(name, value, "true or false" if kind is bool else "text")
    return value


def setting(name: str) -> "Field[Any]":
    """Return the setting of a name.

    Raises:
        UnknownSetting: If there is no such setting; the error names the nearest known one.
    """
    known = {each.name: each for each in SETTINGS}
    if name not in known:
        raise UnknownSetting(name, _ALSO_CALLED.get(name) or nearest_of(name, known))
    return known[name]


def nearest_of(name: str, known: Iterable[str]) -> str:
    """Return the known name with the most similar spelling."""
    return difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.0)[0]


def _check_bounds(setting: "Field[Any]", value: Any) -> None:
    """Raise InvalidConfig if a value is outside the bounds of its setting; NaN is outside all of them."""
    minimum, maximum = setting.metadata["minimum"], setting.metadata["maximum"]
    if setting.metadata["positive"]:
        is_valid, expected = value > 0, "more than 0"
    elif maximum is not None:
        is_valid, expected = minimum <= value <= maximum, f"between {minimum} and {maximum}"
    elif minimum is not None:
        is_valid, expected = value >= minimum, f"at least {minimum}"
    else:
        return
    if not is_valid:
        raise InvalidConfig(setting.name, value, expected)


def _parsed(text: str) -> Any:
    """Return the value of JSON, or None if the text is not JSON."""
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
