"""`reward=bradley_terry`: a reward that makes the preferences it was fitted to likely."""

from __future__ import annotations

from framework.preferences.turn_reward import TurnReward
from framework.types import Floats


class BradleyTerry(TurnReward):
    """One member; its score is the reward, in the unit in which a difference of 1 is chosen with odds of e to 1."""

    def aggregate(self, scores: Floats) -> Floats:
        """See `FittedReward`."""
        return scores[:, 0]
