"""Trajectories: conversations as turns, an observation and an act each, and what a reward makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framework.interfaces import RewardModel
from framework.types import Conversation, Floats, Step

Turn = tuple[str, str]
"""What was shown, a fact or utterance a line, and what was done."""


def turns_of(conversation: Conversation) -> list[Turn]:
    """Each assistant's message with all that was said since the one before it."""
    turns, shown = list[Turn](), list[str]()
    for message in conversation.messages:
        if message.role == "assistant":
            turns.append(("\n".join(shown), message.content))
            shown = []
        else:
            shown.append(message.content)
    return turns


def score_trajectories(reward: RewardModel, conversations: Sequence[Conversation]) -> Floats:
    """The sum of the scores of each conversation's turns, `[N]`; NaN where the reward abstains from one of them."""
    trajectories = [turns_of(conversation) for conversation in conversations]
    scores = reward.score([Step(observation, act, {}, {}) for trajectory in trajectories for observation, act in trajectory])
    owners = np.repeat(np.arange(len(trajectories)), [len(trajectory) for trajectory in trajectories])
    return np.bincount(owners, weights=scores, minlength=len(trajectories)).astype(np.float64)
