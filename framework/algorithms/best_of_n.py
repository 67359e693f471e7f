"""Learning from the best of n: `algo=best_of_n`.

A situation is played `group_size` times to the end, from the same seed and so with the same chances to come; what was said in the best of
these episodes is learnt as if it had been demonstrated, and the next batch is played by who has learnt it. One batch as large as the
run is best-of-n distillation; many are expert iteration, of which the expert is the policy itself with n attempts. Nothing is
learnt from what was worse, and no more from an episode that was far better than from one that was a little better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from framework.algorithms.policy_gradient import GroupedPolicyGradient
from framework.algorithms.turns import Batch, Played
from framework.config import Count
from framework.interfaces import SpeakingPolicy
from framework.losses import mean_of_tokens


@dataclass(kw_only=True)
class BestOfN(GroupedPolicyGradient):
    """Expert iteration by the best of n (RAFT: Dong et al., 2023; ReST: Gulcehre et al., 2023; expert iteration: Anthony et al., 2017).

    Attributes:
        batch_size: turns an update, at the most.
        n_epochs: how often each turn of the best is learnt from.
    """

    batch_size: Count
    n_epochs: Count

    def improve(self, policy: SpeakingPolicy, batch: Batch) -> None:
        """Learns what the best of each group said, every token alike; nothing where no group has a best."""
        rewards = batch.rewards - self.price(batch, self.reference(policy, batch))
        if kept := self.best(batch, rewards):
            self.imitate(policy, Batch.of(kept, batch.rewards.device))

    def best(self, batch: Batch, rewards: Tensor) -> Sequence[Played]:
        """The episode of each group that earned most, none where all earned the same; rewards are of turns, `[B]`."""
        groups = batch.by_episode(rewards)[0].sum(1).view(-1, self.group_size)
        places = groups.argmax(1) + torch.arange(len(groups), device=groups.device) * self.group_size
        return [batch.played[place] for place in places[groups.amax(1) > groups.amin(1)].tolist()]

    def imitate(self, policy: SpeakingPolicy, best: Batch) -> None:
        """Learns what was said in them, in minibatches."""
        for rows in best.minibatches(self.batch_size, self.n_epochs):
            draws = best.draws(rows)
            weights = mean_of_tokens(best.turns[draws])
            for part in policy.score(best.utterances(rows)):
                loss = -weights[part.draws] @ part.logprobs
                loss.backward()
                self.watch(part, best.logprobs[draws[part.draws]], loss)
            self.update()
