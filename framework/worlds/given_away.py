"""What is lost against the optimum when the clock ends an episode; what a single act gives away is Q*(s, a) - V*(s)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from framework.interfaces import Oracle


def cut_short(oracle: Oracle, left: Sequence[int], reward_terms: Mapping[str, float]) -> float:
    """What was still to be had in the information state that was left, as a loss, and what the world charges for leaving it (`abandoned`).

    Args:
        oracle: of the split.
        left: information state in which the clock ended the episode.
        reward_terms: of the last step.
    """
    return reward_terms.get("abandoned", 0.0) - float(oracle.action_values(np.array([left], dtype=np.int64))[0].max())
