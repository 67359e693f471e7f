"""Group-relative policy optimisation and its kin: `algo=grpo algo.loss=grpo|dr_grpo|dapo|gspo|cispo`.

A group is one situation played `group_size` times to the end, from the same seed and so with the same chances to come. What an
episode earned beyond its group's mean is the advantage of all its turns: reward comes from the world alone, and the baseline
depends on nothing that was done, so the gradient of `dr_grpo` is that of the expected return, up to a factor. The others divide by
what is chance too, deviations, lengths and the number of turns: `experiment=exact_gradient` measures what comes of it.

It is tempting to compare turn by turn instead, each turn's reward with the mean reward of the group's turns of the same number.
Where the policy has a say in when an episode ends, that is biased: the means of turns to come are only taken away from those who go
on, which pays every decision to go on a hidden bonus of minus what such turns earn (verl#7244). `algo.credit=turn` compares what came
from a turn on, and counts who has ended as earning nothing: a baseline that is the same for all, so that of `dr_grpo` stays unbiased.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from framework import losses
from framework.advantages import group_relative, turn_by_turn
from framework.algorithms.policy_gradient import GroupedPolicyGradient
from framework.algorithms.turns import Batch
from framework.config import Count, NonNegative
from framework.interfaces import SpeakingPolicy

_CLIPS = {"grpo": (0.2, 0.2), "dr_grpo": (0.2, 0.2), "dapo": (0.2, 0.28), "gspo": (3e-4, 4e-4), "cispo": (1.0, 4.0)}
"""How far a ratio may move before it counts no further, below and above 1, as each loss's authors have it."""


@dataclass(kw_only=True)
class GRPO(GroupedPolicyGradient):
    """Advantages within groups of one situation; a loss per token, tokens weighted as `framework.losses` says; turns are its sequences.

    Attributes:
        batch_size: turns an update, at the most.
        n_epochs: how often each turn is learnt from.
        loss: grpo (Shao et al., 2024), dr_grpo (Liu et al., 2025), dapo (Yu et al., 2025; its clipping and weighting), gspo (Zheng et
            al., 2025) or cispo (MiniMax-M1, 2025).
        credit: what a turn is worth: what its whole `episode` earned, or what came from the `turn` on, in which there is less chance.
        clip_low: how far a ratio may fall below 1; null: as the loss's authors have it.
        clip_high: how far it may rise above.
    """

    batch_size: Count
    n_epochs: Count
    loss: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"]
    credit: Literal["episode", "turn"]
    clip_low: NonNegative | None
    clip_high: NonNegative | None

    def improve(self, policy: SpeakingPolicy, batch: Batch) -> None:
        """Learns from a batch, in minibatches. A turn of no advantage and without a price is weighed, but has no gradient and is not read."""
        reference = self.reference(policy, batch)
        advantages = self.advantages(batch)
        teaches = (advantages != 0) | (self.kl_coef > 0)
        for rows in batch.minibatches(self.batch_size, self.n_epochs):
            drawn, rows = batch.draws(rows), rows[teaches[rows]]
            weights = torch.zeros_like(batch.logprobs).index_copy(0, drawn, self.weights(batch.turns[drawn], batch))
            draws = batch.draws(rows)
            for part in policy.score(batch.utterances(rows)):
                at = draws[part.draws]
                terms = self.terms(part.logprobs, batch.logprobs[at], advantages[batch.turns[at]], batch.turns[at])
                if self.kl_coef:
                    terms = terms + self._counters["kl_coef"] * losses.k3(part.logprobs, reference[at])
                loss = weights[at] @ terms
                loss.backward()
                self.watch(part, batch.logprobs[at], loss)
            if len(rows):
                self.update()

    def advantages(self, batch: Batch) -> Tensor:
        """What each turn was worth beyond what the group's episodes earned on average, `[B]`."""
        scale, groups = self.loss != "dr_grpo", self.groups(batch)
        if self.credit == "episode":
            return group_relative(batch.totals, groups, scale)[batch.episodes]
        rewards, mask = batch.by_episode(batch.rewards)
        return group_relative(*turn_by_turn(rewards, mask, groups), scale).view_as(mask)[mask]

    def terms(self, logprobs: Tensor, old: Tensor, advantages: Tensor, turns: Tensor) -> Tensor:
        """What each draw should become, `[N]` from `[N]` each."""
        low, high = (default if given is None else given for given, default in zip((self.clip_low, self.clip_high), _CLIPS[self.loss], strict=True))
        if self.loss == "gspo":
            return losses.gspo(logprobs, old, advantages, turns, low, high)
        if self.loss == "cispo":
            return losses.cispo(logprobs, old, advantages, 1 + high)
        return losses.ppo(logprobs, old, advantages, low, high)

    def weights(self, turns: Tensor, batch: Batch) -> Tensor:
        """What each draw counts, `[N]`."""
        if self.loss in ("grpo", "gspo"):
            return losses.mean_of_sequences(turns)
        if self.loss == "dr_grpo":
            return losses.mean_of_budgets(turns, self.budget(batch), self.batch_size)
        return losses.mean_of_tokens(turns)
