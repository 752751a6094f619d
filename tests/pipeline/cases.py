"""The policies that the conformance suite is run on: their training settings, and what each of them covers."""

_LSTM = '{"use_lstm": true, "lstm_cell_size": 8}'

#: The cases of `make test`, one of each kind; `make test-conformance` runs all.
IN_SHORT = (
    "CartPole-v1",
    "Pendulum-v1, filtered",
    "gym:CartPole-v1",
    "zoo:Images-v0",
    "zoo:Nested-v0 with an LSTM",
    "zoo:NestedActions-v0",
    "action masks, -inf",
)

#: Name, which is the environment's id by default -> further settings, and what the case covers.
CASES: dict[str, tuple[dict[str, str], str]] = {
    "CartPole-v1": ({}, "plain observations, Discrete actions"),
    "CartPole-v0": ({}, "the same, in an outdated environment"),
    "Acrobot-v1": ({}, "the same"),
    "MountainCar-v0": ({}, "the same"),
    "Pendulum-v1": ({}, "a Box of actions, bounded"),
    "MountainCarContinuous-v0": ({}, "the same"),
    "FrozenLake-v1": ({}, "Discrete observations"),
    "Taxi-v3": ({}, "the same, 500 of them"),
    "Blackjack-v1": ({}, "a Tuple of Discrete observations"),
    "CliffWalking-v1": ({}, "Discrete observations"),
    "gym:CartPole-v1": ({}, "an environment of the legacy package gym"),
    "zoo:Nested-v0": ({}, "Dict and Tuple observations, nested, of every kind, an image among them"),
    "zoo:NestedActions-v0": ({}, "Dict actions"),
    "zoo:TupleActions-v0": ({}, "Tuple actions"),
    "zoo:MultiDiscrete-v0": ({}, "MultiDiscrete observations with `start`, MultiDiscrete actions"),
    "zoo:StartingMultiDiscrete-v0": ({}, "MultiDiscrete actions with `start`, in two dimensions"),
    "zoo:MultiBinary-v0": ({}, "MultiBinary observations and actions"),
    "zoo:DiscreteStart-v0": ({}, "Discrete observations and actions with `start`"),
    "zoo:SquareBox-v0": ({}, "Box observations and actions of two dimensions"),
    "zoo:ScalarBox-v0": ({}, "a Box of actions without dimensions"),
    "zoo:HalfBoundedBox-v0": ({}, "a Box of actions with one or two bounds"),
    "zoo:UnboundedBox-v0": ({}, "a Box of actions without bounds"),
    "zoo:IntegerBox-v0": ({}, "Boxes of integers"),
    "zoo:DoubleBox-v0": ({}, "Boxes of float64"),
    "zoo:Images-v0": ({}, "images of 84 x 84 x 4 uint8, convolved"),
    "zoo:ChannelsFirst-v0": ({}, "images with the channels first"),
    "CartPole-v1 without velocities": (
        {"env_id": "CartPole-v1", "wrapper": "tests.pipeline.zoo:WithoutVelocities", "model_config": _LSTM},
        "a wrapper, and an LSTM",
    ),
    "zoo:Nested-v0 with an LSTM": (
        {"env_id": "zoo:Nested-v0", "model_config": _LSTM, "value_estimates": "true"},
        "an LSTM on nested observations, values estimated",
    ),
    "Pendulum-v1, filtered": ({"env_id": "Pendulum-v1", "observation_filter": "mean-std"}, "the mean/std filter"),
    "Pendulum-v1, free deviations": (
        {"env_id": "Pendulum-v1", "model_config": '{"free_log_std": true}', "vf_share_layers": "true"},
        "standard deviations that do not depend on the observation, shared layers",
    ),
    "action masks": (
        {"env_id": "tests.zoo.masking:Masked-v0", "rl_module": "tests.zoo.masking:LowestFloat"},
        "action masking as in RLlib's example, by the lowest float32",
    ),
    "action masks, -inf": (
        {"env_id": "tests.zoo.masking:Masked-v0", "rl_module": "tests.zoo.masking:MinusInfinity"},
        "action masking by minus infinity",
    ),
    "action masks, -1e9": (
        {"env_id": "tests.zoo.masking:Masked-v0", "rl_module": "tests.zoo.masking:MinusBillion"},
        "action masking by a large number",
    ),
    "CartPole-v1, custom RLModule": (
        {"env_id": "CartPole-v1", "rl_module": "tests.pipeline.zoo:TwoLayers", "model_config": '{"units": 16}'},
        "a custom RLModule with its own setting",
    ),
}
