"""Estimators of the policy gradient from sampled episodes, by the advantages and losses that the algorithms train with.

An estimator is an advantage for every turn and a weight for every turn. Its gradient is that of `weights @ ppo(...)` where nothing has
been learnt yet from the batch, so that all ratios are 1: of `reinforce` too, of `gspo` and `cispo`. It is a sum of scores
∇log π(a|s), and what is kept of it are their coefficients `[S, A]` (see `framework.gradients.exact`).

A turn is one draw here. Whether a loss means turns or episodes by its sequences matters: `per_episode` weights take an episode as the
sequence and turns as its tokens, as where a whole completion is one episode; `per_turn` divides by the turns of the batch.

E: episodes; T: turns of the longest; B: turns of all; S: states; A: acts; M: batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from framework.advantages import gae, group_relative, leave_one_out, reinforce_plus_plus, returns, turn_by_turn, whiten
from framework.gradients.exact import Tables, Truth
from framework.losses import mean_of_budgets, mean_of_sequences, mean_of_tokens, ppo


@dataclass(frozen=True)
class Episodes:
    """What was done, and what it earned; beyond an episode's end rewards are 0 and the mask is false."""

    states: Tensor  # [E, T]
    acts: Tensor  # [E, T]
    rewards: Tensor  # [E, T] float64
    mask: Tensor  # [E, T]
    groups: Tensor  # [E] from 0; the episodes of a group began alike, and have the same chances to come

    @property
    def totals(self) -> Tensor:
        """What each earned, `[E]`."""
        return self.rewards.sum(1)

    @property
    def owners(self) -> Tensor:
        """Which episode each turn is of, `[B]`."""
        return self.mask.nonzero()[:, 0]


class Batches:
    """Episodes in batches of one size.

    Attributes:
        episodes: of all batches; their groups are counted through.
        parts: the batches, `M`; the groups of each are counted from 0.
        pairs: S·A.
        places: of each turn among M·S·A coefficients, `[B]`.
    """

    def __init__(self, episodes: Episodes, size: int, shape: tuple[int, int]) -> None:
        self.episodes, self.pairs = episodes, shape[0] * shape[1]
        tables = (episodes.states, episodes.acts, episodes.rewards, episodes.mask, episodes.groups)
        split = zip(*(table.split(size) for table in tables), strict=True)
        self.parts = [Episodes(states, acts, rewards, mask, groups - groups[0]) for states, acts, rewards, mask, groups in split]
        self.places = (episodes.owners // size) * self.pairs + (episodes.states * shape[1] + episodes.acts)[episodes.mask]


def sample(tables: Tables, logprobs: Tensor, n_groups: int, group_size: int, generator: torch.Generator) -> Episodes:
    """Episodes of a policy `[S, A]`, group after group; in a group, what a turn draws of chance is the same for all, as in `turns.play`."""
    at = torch.multinomial(tables.start, n_groups, replacement=True, generator=generator).repeat_interleave(group_size)
    groups = torch.arange(n_groups).repeat_interleave(group_size)
    policy, chances = logprobs.double().exp(), tables.chances.cumsum(-1)
    steps: list[tuple[Tensor, ...]] = []
    while (alive := at < len(tables.states)).any():
        here = at.where(alive, 0)
        acts = torch.multinomial(policy[here], 1, generator=generator)[:, 0]
        chance = torch.rand(n_groups, dtype=torch.float64, generator=generator)[groups]
        outcome = (chance[:, None] >= chances[here, acts]).sum(1).clamp(max=chances.shape[-1] - 1)
        steps.append((here, acts, tables.rewards[here, acts, outcome] * alive, alive))
        at = tables.leads[here, acts, outcome].where(alive, at)
    states, done, rewards, mask = (torch.stack(column, 1) for column in zip(*steps, strict=True))
    return Episodes(states, done, rewards, mask, groups)


@dataclass(frozen=True)
class Estimator:
    """One way to estimate a policy gradient."""

    name: str
    family: str
    advantages: Callable[[Episodes], Tensor]  # [E, T]
    weights: Callable[[Episodes], Tensor]  # [B]
    grouped: bool = True  # whether it is for episodes in groups; else each begins by itself
    unbiased: bool = False  # whether its expectation is the gradient, whatever the size of the batch
    whole: bool = False  # whether an advantage depends on the whole batch, not on its own group alone

    def coefficients(self, batches: Batches) -> Tensor:
        """Of the scores in the ascent direction, `[M, S·A]`. What no batch as a whole decides is worked out for all of them at once."""
        parts = batches.parts if self.whole else [batches.episodes]
        advantages = torch.cat([self.advantages(part)[part.mask] for part in parts])
        weights = torch.cat([self.weights(part) for part in batches.parts]).double()
        logprobs = torch.zeros(len(advantages), dtype=torch.float64, requires_grad=True)
        (slopes,) = torch.autograd.grad(weights @ ppo(logprobs, logprobs, advantages), logprobs)
        return torch.zeros(len(batches.parts) * batches.pairs, dtype=torch.float64).index_add(0, batches.places, -slopes).view(-1, batches.pairs)


def turn_index(episodes: Episodes) -> Tensor:
    """Rewards to come, each less the mean reward of the group's turns of the same number, `[E, T]`: biased (verl#7244).

    The mean is over the episodes that come so far, and only they have it taken away: what a later turn earns on average is charged to
    going on, not to stopping. Going on is paid a hidden bonus of minus what the turns to come earn.
    """
    cells = (episodes.groups[:, None] * episodes.mask.shape[1] + torch.arange(episodes.mask.shape[1]))[episodes.mask]
    paid, counts = episodes.rewards[episodes.mask], torch.bincount(cells).clamp(min=1)
    means = torch.zeros(len(counts), dtype=torch.float64).index_add(0, cells, paid) / counts
    return returns(torch.zeros_like(episodes.rewards).masked_scatter(episodes.mask, paid - means[cells]), episodes.mask)


def turn_index_corrected(episodes: Episodes) -> Tensor:
    """Rewards to come from turn t less the mean of the others' of the group from turn t, which is 0 of those that have ended: `[E, T]`.

    The baseline is the same whether an episode goes on or stops, and depends on nothing that it did: unbiased.
    """
    return leave_one_out(*turn_by_turn(episodes.rewards, episodes.mask, episodes.groups)).view_as(episodes.mask) * episodes.mask


def per_episode(episodes: Episodes) -> Tensor:
    """1 / E, `[B]`: a sum over turns, a mean over episodes, as the gradient of the expected return is, and as `algo=reinforce` and `dr_grpo` take it."""
    return mean_of_budgets(episodes.owners, 1)


def per_turn(episodes: Episodes) -> Tensor:
    """1 / B, `[B]`: a mean over the turns of the batch, as the other losses of `algo=grpo` and `ppo_text` take it of acts that are one draw."""
    return mean_of_tokens(episodes.owners)


def menu(truth: Truth) -> list[Estimator]:
    """All estimators of a policy's gradient. A perfect critic says its values, a constant one its return, and a wrong one takes good for bad."""
    values = truth.values.detach()
    critics = {"perfect": values, "constant": truth.value.detach().expand_as(values), "wrong": -values}
    return [
        Estimator("REINFORCE, whole return", "REINFORCE", lambda e: _spread(e.totals, e), per_episode, grouped=False, unbiased=True),
        Estimator("REINFORCE, return to come", "REINFORCE", lambda e: returns(e.rewards, e.mask), per_episode, grouped=False, unbiased=True),
        Estimator("REINFORCE++", "REINFORCE", _plus_plus, per_episode, whole=True),
        Estimator("RLOO", "group", lambda e: _spread(leave_one_out(e.totals, e.groups), e), per_episode, unbiased=True),
        Estimator("group mean (Dr. GRPO)", "group", _relative(False), per_episode),
        Estimator("group mean, / deviation", "group", _relative(True), per_episode),
        Estimator("group mean, / length", "group", _relative(False), lambda e: mean_of_sequences(e.owners)),
        Estimator("GRPO: / deviation, / length", "group", _relative(True), lambda e: mean_of_sequences(e.owners)),
        Estimator("DAPO, algo=grpo: / deviation, / turns", "group", _relative(True), per_turn),
        Estimator("turn index (verl#7244)", "turn index", turn_index, per_episode),
        Estimator("turn index, corrected", "turn index", turn_index_corrected, per_episode, unbiased=True),
        *(_gae(name, critic, trust) for name, critic in critics.items() for trust in (0.0, 0.95, 1.0)),
        Estimator("algo=ppo_text, perfect critic", "as run", lambda e: _whitened_gae(e, values), per_turn, grouped=False, whole=True),
    ]


def _spread(numbers: Tensor, episodes: Episodes) -> Tensor:
    """One number an episode `[E]` for all its turns, `[E, T]`."""
    return numbers[:, None] * episodes.mask


def _relative(scale: bool) -> Callable[[Episodes], Tensor]:
    return lambda e: _spread(group_relative(e.totals, e.groups, scale), e)


def _plus_plus(episodes: Episodes) -> Tensor:
    to_come = returns(episodes.rewards, episodes.mask)
    return to_come.masked_scatter(episodes.mask, reinforce_plus_plus(to_come[episodes.mask]))


def _gae(name: str, critic: Tensor, trust: float) -> Estimator:
    def advantages(episodes: Episodes) -> Tensor:
        return gae(episodes.rewards, critic[episodes.states], episodes.mask, 1.0, trust)

    return Estimator(f"GAE {trust:g}, {name} critic", "GAE", advantages, per_episode, grouped=False, unbiased=name == "perfect" or trust == 1)


def _whitened_gae(episodes: Episodes, values: Tensor) -> Tensor:
    """As of a first batch: by the deviation of advantages or of returns, whichever is larger."""
    advantages = gae(episodes.rewards, values[episodes.states], episodes.mask, 1.0, 0.95)
    return whiten(advantages, episodes.mask, least=float(episodes.totals.std(correction=0)))
