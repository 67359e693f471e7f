"""`reward=proxy`: what a domain's exploitable stand-in for its reward would pay (`Domain.proxy` says what that is)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framework.interfaces import RewardModel
from framework.types import Floats, Step


class Proxy(RewardModel):
    """A step's proxy."""

    def score(self, turns: Sequence[Step]) -> Floats:
        """See `RewardModel`."""
        return np.array([turn.proxy for turn in turns], dtype=np.float64)
