"""`reward=gold`: the domain's own reward, which is also what evaluation goes by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framework.interfaces import RewardModel
from framework.types import Floats, Step


class Gold(RewardModel):
    """The sum of a step's reward terms."""

    def score(self, turns: Sequence[Step]) -> Floats:
        """See `RewardModel`."""
        return np.array([sum(turn.reward_terms.values()) for turn in turns], dtype=np.float64)
