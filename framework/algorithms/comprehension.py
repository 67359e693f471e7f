"""A lesson in reading: what an ideal reader gathers from a text, told from what was read of it, thrown away when it is learnt."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from framework.types import Ints


class Comprehension(nn.Module):
    """Linear classifiers that tell each component of the information state from what was read.

    A policy's loss says only which act is right, and few of the words that were read decide an act; this says of all what they mean.

    Args:
        states: of each demonstration, `[N, K]`.
        width: of what was read, D.
    """

    def __init__(self, states: Ints, width: int) -> None:
        super().__init__()
        columns = [np.unique(column, return_inverse=True) for column in states.T]
        self._classes = [len(values) for values, _ in columns]
        self._told = torch.as_tensor(np.stack([told for _, told in columns], axis=1))
        self.tell = nn.Linear(width, sum(self._classes))

    def forward(self, read: Tensor, rows: Tensor) -> Tensor:
        """Mean cross-entropy a component.

        Args:
            read: of some demonstrations, `[B, D]`.
            rows: which they are, `[B]`.
        """
        told = self._told[rows.cpu()].to(read.device)
        losses = [cross_entropy(part, told[:, k]) for k, part in enumerate(self.tell(read).split(self._classes, dim=1))]
        return torch.stack(losses).mean()
