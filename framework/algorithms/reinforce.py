"""REINFORCE with a baseline that needs no critic: `algo=reinforce algo.advantage=rloo|reinforce_plus_plus`.

One update on what was just sampled, so there is no ratio and nothing to clip. The price of leaving the reference is paid in the
reward, turn by turn. `rloo` compares an episode's return with those of the others that were played from the same situation, and
credits it to all its turns; `reinforce_plus_plus` credits to a turn what came from it on, and compares with all turns of the batch:
a baseline that is the same wherever a turn stands pays no bonus for going on (see `framework.algorithms.grpo`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from framework.advantages import leave_one_out, reinforce_plus_plus, returns
from framework.algorithms.policy_gradient import GroupedPolicyGradient
from framework.algorithms.turns import Batch
from framework.interfaces import SpeakingPolicy
from framework.losses import mean_of_budgets, reinforce


@dataclass(kw_only=True)
class Reinforce(GroupedPolicyGradient):
    """RLOO (Kool et al., 2019; Ahmadian et al., 2024) and REINFORCE++ (Hu et al., 2025).

    Attributes:
        advantage: which of the two.
    """

    advantage: Literal["rloo", "reinforce_plus_plus"]

    def improve(self, policy: SpeakingPolicy, batch: Batch) -> None:
        """Learns from a batch, in one update."""
        rewards = batch.rewards - self.price(batch, self.reference(policy, batch))
        advantages = self.advantages(batch, rewards, self.groups(batch))
        rows = advantages.nonzero()[:, 0]  # the others have no gradient
        draws, weights = batch.draws(rows), mean_of_budgets(batch.turns, self.budget(batch), len(batch.played))
        for part in policy.score(batch.utterances(rows)):
            at = draws[part.draws]
            loss = weights[at] @ reinforce(part.logprobs, advantages[batch.turns[at]])
            loss.backward()
            self.watch(part, batch.logprobs[at], loss)
        if len(rows):
            self.update()

    def advantages(self, batch: Batch, rewards: Tensor, groups: Tensor) -> Tensor:
        """What each turn was worth beyond what was expected, `[B]`."""
        table, mask = batch.by_episode(rewards)
        if self.advantage == "rloo":
            return leave_one_out(table.sum(1), groups)[batch.episodes]
        return reinforce_plus_plus(returns(table, mask)[mask])
