"""What a model has read of prompts: their keys and values, for prompts that begin like them.

Turn by turn an episode's prompt grows at its end. While the model stays as it is, what it made of the beginning stays true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from framework.types import Ints

_WORTH_IT = 0.5  # share of a prompt that must have been read before: for less, a pass in which rows begin at different places is no gain
Layers = Mapping[int, Sequence[Tensor]]
"""Of each layer keys and values `[P, K, T, D]`: prompts, key heads, tokens of the longest prompt, width of a head."""


class ReadBefore:
    """The prompts that were read last, and what the model made of them."""

    def __init__(self) -> None:
        self._ids = np.full((0, 0), -1, np.int64)  # [P, T], -1 beyond a prompt's end
        self.layers: Layers = {}

    def keep(self, prompts: Sequence[Ints], layers: Layers) -> None:
        """Remembers these prompts instead of those before."""
        self._ids = np.full((len(prompts), max(map(len, prompts))), -1, np.int64)
        for row, prompt in zip(self._ids, prompts, strict=True):
            row[: len(prompt)] = prompt
        self.layers = {layer: tuple(stores) for layer, stores in layers.items()}

    def beginnings(self, prompts: Sequence[Ints]) -> tuple[Ints, Ints]:
        """For each prompt the row that begins most like it, and how many tokens they have in common, `[P]` each.

        0 where that is too few to matter. The last token of a prompt never counts: what follows it has yet to be read.
        """
        if not len(self._ids):
            return np.zeros(len(prompts), np.int64), np.zeros(len(prompts), np.int64)
        rows, common = np.array([self._most_alike(prompt) for prompt in prompts]).T
        return rows, np.where(common >= _WORTH_IT * np.array([len(prompt) for prompt in prompts]), common, 0)

    def _most_alike(self, prompt: Ints) -> tuple[int, int]:
        width = min(len(prompt) - 1, self._ids.shape[1])
        differs = np.append(self._ids[:, :width] != prompt[:width], np.ones((len(self._ids), 1), bool), axis=1)
        common = differs.argmax(axis=1)
        return int(common.argmax()), int(common.max())
