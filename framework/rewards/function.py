"""`reward=function reward.function=your_package.your_function`: a reward of your own, in a line of Python."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framework.config import resolve
from framework.errors import ConfigError
from framework.interfaces import RewardModel
from framework.types import Floats, Step


class FunctionReward(RewardModel):
    """What a function gives for each turn.

    Args:
        function: its dotted name, in a package that may be built from. It is called with a `framework.types.Step`: what was shown, the act, the
            world's own reward terms and costs; it returns a number, or None to abstain.
    """

    def __init__(self, function: str) -> None:
        self.function = resolve(function, "reward.function")
        if not callable(self.function):
            raise ConfigError("reward.function", f"{function} is no function but {type(self.function).__name__}")

    def score(self, turns: Sequence[Step]) -> Floats:
        """See `RewardModel`."""
        given = [self.function(turn) for turn in turns]
        return np.array([np.nan if points is None else points for points in given], dtype=np.float64)
