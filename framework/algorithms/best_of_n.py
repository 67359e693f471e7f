"""Learning from the best of n: `algo=best_of_n`.

A situation is played `group_size` times to the end, from the same seed and so with the same chances to come; what was said in the best of
these episodes is learnt as if it had been demonstrated, and the next batch is played by who has learnt it. One batch as large as the
run is best-of-n distillation; many are expert iteration, of which the expert is the policy itself with n attempts. Nothing is
learnt from what was worse, and no more from an episode that was far better than from one that was a little better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from framework.algorithms.policy_gradient import PolicyGradient
from framework.algorithms.turns import Batch, Played, play
from framework.config import Count
from framework.interfaces import Learning, Policy, SpeakingPolicy, World
from framework.losses import mean_of_tokens, reinforce


@dataclass(kw_only=True)
class BestOfN(PolicyGradient):
    """Expert iteration by the best of n (RAFT: Dong et al., 2023; ReST: Gulcehre et al., 2023; expert iteration: Anthony et al., 2017).

    Attributes:
        n_groups: situations a batch.
        group_size: n, episodes of each.
        batch_size: turns an update, at the most.
        n_epochs: how often each turn of the best is learnt from.
    """

    n_groups: Count
    group_size: Annotated[int, Field(ge=2)]
    batch_size: Count
    n_epochs: Count

    def learn(self, policy: Policy, make_world: Callable[[], World], run: Learning) -> None:
        """See `Algorithm`."""
        assert isinstance(policy, SpeakingPolicy)
        self.begin(policy, run)
        worlds = [make_world() for _ in range(self.n_groups * self.group_size)]
        while self.goes_on(run):
            batch = Batch.of(play(policy, worlds, self.seeds(run.seed, self.n_groups, self.group_size)), run.device)
            rewards = batch.rewards - self.price(batch, self.reference(policy, batch))
            if best := self.best(batch, rewards):
                self.imitate(policy, Batch.of(best, run.device))
            self.account(batch, batch.flat(self.group_size))

    def best(self, batch: Batch, rewards: Tensor) -> Sequence[Played]:
        """The episode of each group that earned most, none where all earned the same; rewards are of turns, `[B]`."""
        groups = batch.by_episode(rewards)[0].sum(1).view(-1, self.group_size)
        places = groups.argmax(1) + torch.arange(len(groups), device=groups.device) * self.group_size
        return [batch.played[place] for place in places[groups.amax(1) > groups.amin(1)].tolist()]

    def imitate(self, policy: SpeakingPolicy, best: Batch) -> None:
        """Learns what was said, every token alike."""
        for said, draws in best.minibatches(self.batch_size, self.n_epochs):
            weights = mean_of_tokens(best.turns[draws])
            for part in policy.score(said):
                before = best.logprobs[draws[part.draws]]
                loss = weights[part.draws] @ reinforce(part.logprobs, torch.ones_like(before))
                loss.backward()
                self.watch(part, before, loss)
            self.update()
