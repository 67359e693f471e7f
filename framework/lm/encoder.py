"""What every reader of lines offers, whether a pretrained model, a random one or word counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from framework.errors import ConfigError
from framework.lm.adapters import Lora


class LineEncoder(nn.Module, ABC):
    """Turns a line of text into K vectors of width D (one for each layer it is read at).

    Constructing one is cheap; `fit` loads weights. Statistics fitted on training lines (and learned adapters) are part of its
    `state_dict`; frozen pretrained weights are not.
    """

    trainable: bool = False  # whether gradients reach the encoder
    shape: tuple[int, int]  # (K, D), known after `fit`

    def tuned(self, adapter: Lora) -> LineEncoder:
        """The same reader, not placed yet, with an adapter that learns.

        Raises:
            ConfigError: there is nothing in it that an adapter could be put on.
        """
        raise ConfigError("lm", f"{type(self).__name__} has no layers that an adapter could tune; choose another, lm=minilm say")

    @abstractmethod
    def place(self, device: torch.device) -> None:
        """Loads what is not in the `state_dict` and moves to a device."""

    @abstractmethod
    def fit(self, lines: Sequence[str]) -> None:
        """Fits statistics on distinct training lines; called once, after `place`."""

    @abstractmethod
    def tokens(self, lines: Sequence[str]) -> list[bytes]:
        """What the encoder sees of each line: two lines with equal tokens are one."""

    @abstractmethod
    def encode(self, tokens: Sequence[bytes]) -> Tensor:
        """Features `[n, K, D]`, float32, of lines given by their tokens."""


class Standardiser(nn.Module):
    """Zero mean and unit variance over the training lines: `[n, K, D]` in and out.

    Mean-pooled hidden states of a transformer share one large common vector; what tells two lines apart is what is left of it.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def fit(self, features: Tensor) -> None:
        """Takes the statistics of these features."""
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_(1 / features.std(dim=0).clamp(min=1e-3))

    def forward(self, features: Tensor) -> Tensor:
        """Standardised features."""
        return (features - self.mean) * self.scale
