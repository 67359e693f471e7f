"""How often does a policy solve a ticket every time it is met? (pass^k of tau-bench; Yao et al., 2024)"""

from __future__ import annotations

from math import comb

import numpy as np

from domains.customer_service.policy_desk.world import PolicyDesk
from framework.rollout import following, onwards
from framework.seeding import episode_seed
from framework.types import Bools


def pass_k(successes: Bools, k: int) -> float:
    """Chance that k trials of one task all succeed, on average over tasks.

    Args:
        successes: `[tasks, trials]`.
        k: at most as many as there are trials; c successes in n trials count comb(c, k) / comb(n, k), which is unbiased.
    """
    trials = successes.shape[1]
    return float(np.mean([comb(int(count), k) / comb(trials, k) for count in successes.sum(axis=1)]))


def repeated_trials(domain: PolicyDesk, reference: str, split: str, tickets: int, trials: int) -> Bools:
    """Successes of a reference policy, `[tickets, trials]`: the same tickets, met with other words and another patience."""
    world, oracle = domain.make(split), domain.oracle(split)
    successes = np.zeros((tickets, trials), bool)
    for ticket, trial in np.ndindex(successes.shape):
        seed = episode_seed(split, ticket * trials + trial)
        world.reset(seed=seed, options={"ticket": ticket})
        for _ in onwards(world, following(oracle, reference, seed)):
            pass
        successes[ticket, trial] = bool(world.success)
    return successes
