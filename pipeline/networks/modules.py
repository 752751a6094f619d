"""An RLModule for every supported observation space, with the preprocessing inside the network.

Environment runner, learner and exported graph therefore share the preprocessing. RLlib's default module is used for
one-dimensional Boxes of floats, which it takes without preprocessing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT, Encoder
from ray.rllib.core.models.configs import ModelConfig
from ray.rllib.core.models.torch.base import TorchModel
from ray.rllib.core.models.torch.primitives import TorchCNN

from pipeline.environments.action_adapters import choices, is_integer
from pipeline.environments.images import has_channels_first, image_shape, is_image
from pipeline.environments.nested_spaces import flatten
from pipeline.rllib.compat import CustomEncoderCatalog, default_encoder, warn_without_custom_encoders
from serving.policy.spaces import LeafSpace, leaves

#: The number of consecutive integers from 0 that float32 represents exactly.
_EXACT_IN_FLOAT32 = 2**24

#: Convolutions shrink an image to at most this height and width.
_MAX_MAP_SIZE = 8
_FIRST_FILTERS = 16


def is_plain(space: Space[Any]) -> bool:
    """Return whether RLlib's default module takes the observations without preprocessing."""
    return isinstance(space, spaces.Box) and len(space.shape) == 1 and bool(np.issubdtype(space.dtype, np.floating))


class Preprocessor(torch.nn.Module):
    """Converts each observation to one float32 vector.

    Boxes are flattened, bounded integers scaled to [0, 1], and choices one-hot encoded. Images are at the end of the
    vector, as height x width x channels.
    """

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self._space = space
        found = [leaf.space for leaf in leaves(space)]
        self._order = sorted(range(len(found)), key=lambda index: is_image(found[index]))  # images last
        self._leaves = torch.nn.ModuleList(map(_leaf_preprocessor, found))

    def forward(self, observations: Any) -> torch.Tensor:
        """Convert nested tensors `[..., *leaf.shape]` to one of shape `[..., size]`."""
        flat = flatten(self._space, observations)
        return torch.cat([self._leaves[index](flat[index]) for index in self._order], dim=-1)


def _vector_size(space: LeafSpace) -> int:
    """Return the number of elements of the vector that a leaf takes."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    return math.prod(space.shape)


def _leaf_preprocessor(space: LeafSpace) -> torch.nn.Module:
    if isinstance(space, spaces.Discrete):
        return _OneHot(np.array([space.n]), np.array([space.start]), rank=0)
    if isinstance(space, spaces.MultiDiscrete):
        return _OneHot(space.nvec.ravel(), space.start.ravel(), rank=space.nvec.ndim)
    return _Numbers(space)


class _OneHot(torch.nn.Module):
    """Converts integers to concatenated one-hot vectors."""

    _component: torch.Tensor
    _choice: torch.Tensor

    def __init__(self, sizes: Any, starts: Any, rank: int) -> None:
        super().__init__()
        self._rank = rank
        component = np.repeat(np.arange(len(sizes)), sizes)
        choice = np.concatenate([start + np.arange(size) for size, start in zip(sizes, starts, strict=True)])
        self.register_buffer("_component", torch.from_numpy(component), persistent=False)
        self.register_buffer("_choice", torch.from_numpy(choice.astype(np.int64)), persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        flat = _flat(values.long(), self._rank)
        return (flat.index_select(-1, self._component) == self._choice).float()


class _Numbers(torch.nn.Module):
    """Converts an element of a Box or MultiBinary to a flat float32 vector."""

    _low: torch.Tensor
    _width: torch.Tensor

    def __init__(self, space: spaces.Box | spaces.MultiBinary) -> None:
        super().__init__()
        self._rank = len(space.shape)
        self._channels_first = is_image(space) and has_channels_first(space)
        self._scales = False
        if isinstance(space, spaces.Box) and _is_scaled(space):
            self._scales = True
            low, width = space.low.astype(np.float32), (choices(space) - 1).astype(np.float32)
            self.register_buffer("_low", torch.from_numpy(low), persistent=False)
            self.register_buffer("_width", torch.from_numpy(np.maximum(width, 1)), persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        numbers = values.float()
        if self._scales:
            numbers = (numbers - self._low) / self._width
        return _flat(numbers.movedim(-3, -1) if self._channels_first else numbers, self._rank)


def _is_scaled(space: spaces.Box) -> bool:
    is_bounded = space.bounded_below.all() and space.bounded_above.all()
    return is_integer(space) and bool(is_bounded) and bool((choices(space) <= _EXACT_IN_FLOAT32).all())


def _flat(values: torch.Tensor, rank: int) -> torch.Tensor:
    """Flatten the last `rank` dimensions."""
    return values.unsqueeze(-1) if rank == 0 else values.flatten(-rank)


class AnySpaceCatalog(CustomEncoderCatalog):
    """Builds RLlib's networks for PPO on the output of the preprocessor."""

    def __init__(self, observation_space: Space[Any], action_space: Space[Any], model_config_dict: Any) -> None:
        vector = _Vector(observation_space)
        if vector.images:
            warn_without_custom_encoders()
        super().__init__(vector, action_space, model_config_dict)

    @classmethod
    def custom_encoder(cls, observation_space: Space[Any], model_config: dict[str, Any]) -> ModelConfig | None:
        """Return a convolving encoder for a vector with images, except below an LSTM."""
        if isinstance(observation_space, _Vector) and observation_space.images and not model_config["use_lstm"]:
            return ConvolvingEncoderConfig(space=observation_space, model_config=model_config)
        return None


class _Vector(spaces.Box):
    """The space of the preprocessor's output, with the shapes of the images at its end."""

    def __init__(self, observation_space: Space[Any]) -> None:
        found = [leaf.space for leaf in leaves(observation_space)]
        self.images = [image_shape(leaf) for leaf in found if is_image(leaf)]
        super().__init__(-np.inf, np.inf, (sum(map(_vector_size, found)),), np.float32)


@dataclass
class ConvolvingEncoderConfig(ModelConfig):  # type: ignore[misc]  # RLlib has no types
    """The configuration of an encoder for vectors with images at their ends."""

    space: Any = None
    model_config: dict[str, Any] = field(default_factory=dict)

    @property
    def output_dims(self) -> tuple[int]:
        """The output shape of the dense layers, which follow the convolutions."""
        return (self.model_config["fcnet_hiddens"][-1],)

    def build(self, framework: str = "torch") -> "ConvolvingEncoder":
        """Build the encoder; torch is the only framework."""
        assert framework == "torch"  # noqa: S101  # RLlib's new API stack has no other
        return ConvolvingEncoder(self)


class ConvolvingEncoder(TorchModel, Encoder):  # type: ignore[misc]  # as above
    """Convolves each image, and applies dense layers to the results and the rest of the vector."""

    def __init__(self, config: ConvolvingEncoderConfig) -> None:
        TorchModel.__init__(self, config)
        Encoder.__init__(self, config)
        self._images = config.space.images
        self._sizes = [config.space.shape[0] - sum(map(math.prod, self._images)), *map(math.prod, self._images)]
        self._convolutions = torch.nn.ModuleList([_convolutions(shape, config.model_config) for shape in self._images])
        with torch.no_grad():
            joined = self._joined(torch.zeros(1, *config.space.shape))
        dense = spaces.Box(-np.inf, np.inf, (joined.shape[-1],), np.float32)
        self._dense = default_encoder(dense, config.model_config | {"use_lstm": False})

    def _forward(self, inputs: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {ENCODER_OUT: self._dense({Columns.OBS: self._joined(inputs[Columns.OBS])})[ENCODER_OUT]}

    def _joined(self, vectors: torch.Tensor) -> torch.Tensor:
        plain, *flat = torch.split(vectors, self._sizes, dim=-1)
        images = zip(self._convolutions, flat, self._images, strict=True)
        return torch.cat([plain, *(convolve(each.reshape(-1, *shape)) for convolve, each, shape in images)], dim=-1)


def _convolutions(shape: Sequence[int], model_config: dict[str, Any]) -> torch.nn.Module:
    convolutions = TorchCNN(
        input_dims=shape,
        cnn_filter_specifiers=model_config["conv_filters"] or _filters(shape),
        cnn_activation=model_config["conv_activation"],
        cnn_kernel_initializer=model_config["conv_kernel_initializer"],
        cnn_kernel_initializer_config=model_config["conv_kernel_initializer_kwargs"],
        cnn_bias_initializer=model_config["conv_bias_initializer"],
        cnn_bias_initializer_config=model_config["conv_bias_initializer_kwargs"],
    )
    return torch.nn.Sequential(convolutions, torch.nn.Flatten())


def _filters(shape: Sequence[int]) -> list[list[int]]:
    """Return layers of kernel size 4 and stride 2 with 16, 32, ... filters, until height and width are at most 8."""
    filters = [[_FIRST_FILTERS, 4, 2]]
    while max(shape[:2]) > _MAX_MAP_SIZE * 2 ** len(filters):
        filters.append([2 * filters[-1][0], 4, 2])
    return filters


class AnySpacePPOModule(DefaultPPOTorchRLModule):  # type: ignore[misc]  # as above
    """RLlib's default module for PPO, with a preprocessor of the observations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"catalog_class": AnySpaceCatalog})

    def setup(self) -> None:
        """Build the networks."""
        super().setup()
        self.preprocessor = Preprocessor(self.observation_space)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> Any:
        return super()._forward(self._preprocessed(batch), **kwargs)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> Any:
        return super()._forward_train(self._preprocessed(batch), **kwargs)

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        """Return the value estimates, a tensor with the leading dimensions of the batch."""
        return super().compute_values(batch if embeddings is not None else self._preprocessed(batch), embeddings)

    def _preprocessed(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, Columns.OBS: self.preprocessor(batch[Columns.OBS])}
