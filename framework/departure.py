"""How far a policy has gone from where it began to learn, and what that bought: gold, and the reward that it climbs.

Over-optimisation shows against the distance from the start, √KL, rather than against time (Gao et al., 2023, arXiv:2210.10760).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from framework.evaluation import evaluate
from framework.interfaces import Domain, Policy, RewardModel, SpeakingPolicy
from framework.losses import k3
from framework.statistics import bootstrap
from framework.types import Ints, Observations, Reply

_SPLIT = "validation"


class _Drawing(Policy):
    """Acts as a policy does that draws its acts, and adds up how much likelier they are to it than to what it was."""

    def __init__(self, policy: Policy, start: Policy) -> None:
        self._policy, self._start, self.nats = policy, start, 0.0

    def playing(self) -> AbstractContextManager[None]:
        """See `Policy`."""
        return self._policy.playing()

    @torch.no_grad()
    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        """See `Policy`."""
        return np.array([reply.act for reply in self.reply(observations)])

    @torch.no_grad()
    def reply(self, observations: Observations, deterministic: bool = False) -> Sequence[Reply]:
        """See `Policy`; always drawn."""
        if isinstance(self._policy, SpeakingPolicy) and isinstance(self._start, SpeakingPolicy):
            said = self._policy.say(observations)
            replies = [Reply(each.act, each.text) for each in said]
            # Read anew, though they were kept when drawn: both policies then round alike, and one that has not moved has gone nowhere.
            now, before = (policy.logprobs(said).double() for policy in (self._policy, self._start))
        else:
            acts = self._policy.act(observations)
            replies = [Reply(int(act)) for act in acts]
            now, before = (policy.evaluate(observations, acts).logprobs.double() for policy in (self._policy, self._start))
        self.nats += float(k3(now, before).sum())
        return replies


def departure(policy: Policy, start: Policy, domain: Domain, reward: RewardModel | None, episodes: int) -> dict[str, Any]:
    """Of episodes of the validation split in which acts are drawn, as plain data.

    Returns:
        `kl`: KL(π ‖ π_start) in nats an episode, summed over its turns (in words, over the tokens that are said), estimated without bias from what was
        drawn; `gold` and, if there is one, `reward`: the return of each, estimates. A turn from which the reward abstains is worth what the episode's
        others are on average.
    """
    drawing = _Drawing(policy, start)
    found = evaluate(drawing, domain, _SPLIT, episodes, stories=episodes)
    gone = {"kl": drawing.nats / len(found.stories), "gold": asdict(found.returns)}
    if reward is None:
        return gone
    scores = [reward.score(episode.steps) for episode in found.stories]
    paid = [float(len(found) * np.nanmean(found)) if np.isfinite(found).any() else 0.0 for found in scores]
    return {**gone, "reward": asdict(bootstrap(paid))}
