"""A table of lines: the control that knows every line by heart and no two alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from framework.config import Count
from framework.lm.encoder import LineEncoder


class LookupEncoder(LineEncoder):
    """Gives every line a code of its own, of normal numbers drawn by the line's hash: what is learnt of one says nothing of another.

    Args:
        width: of a code, D; the more, the less do many codes resemble one another by chance.
    """

    def __init__(self, width: Count = 1_024) -> None:
        super().__init__()
        self.shape = (1, width)

    def place(self, device: torch.device) -> None:
        """Remembers the device."""
        self.device = device

    def fit(self, lines: Sequence[str]) -> None:
        """Has nothing to fit."""

    def tokens(self, lines: Sequence[str]) -> list[bytes]:
        """The text itself."""
        return [line.encode() for line in lines]

    def encode(self, tokens: Sequence[bytes]) -> Tensor:
        """Codes, the same wherever and whenever the line comes up."""
        seeds = (int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little") for line in tokens)
        codes = [np.random.default_rng(seed).standard_normal(self.shape, np.float32) for seed in seeds]
        return torch.from_numpy(np.stack(codes)).to(self.device)
