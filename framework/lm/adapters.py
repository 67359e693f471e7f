"""What of a language model learns: nothing (no adapter), low-rank updates, or every weight."""

from __future__ import annotations

from framework.config import Count


class Lora:
    """Low-rank updates of every linear layer (Hu et al., 2021; peft).

    Args:
        rank: of the updates.
        alpha: their scale, times the rank.
    """

    def __init__(self, rank: Count = 8, alpha: Count = 16) -> None:
        self.rank, self.alpha = rank, alpha


class Full:
    """Every weight learns."""
