"""Advantages as pure functions: what an act was worth beyond what was expected.

B: sequences or episodes; T: their longest, in tokens or turns; a mask `[B, T]` says which places count. Places that do not, padding
or words of others between turns, are passed over: what comes after them follows what comes before. No gradient passes through.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, gae_lambda: float = 0.95, last_values: Tensor | None = None) -> Tensor:
    """Generalised advantage estimates Aₜ = δₜ + γλAₜ₊₁ with δₜ = rₜ + γVₜ₊₁ − Vₜ, `[B, T]`, 0 outside the mask (Schulman et al., 2016).

    The targets of the values are advantages plus values.

    Args:
        rewards: `[B, T]`.
        values: `[B, T]`.
        mask: `[B, T]` bool.
        gamma: discount from a place to the next.
        gae_lambda: how far to trust rewards over values.
        last_values: value of where each sequence was cut off `[B]`; 0 for those that ended of themselves. All ended unless given.
    """
    _same(2, rewards=rewards, values=values, mask=mask)
    following = torch.zeros_like(values[:, 0]) if last_values is None else last_values.to(values.dtype)
    _same(1, last_values=following, first_values=values[:, 0])
    ahead, advantages = torch.zeros_like(following), torch.zeros_like(values)
    for t in reversed(range(values.shape[1])):
        counts = mask[:, t].bool()
        delta = rewards[:, t] + gamma * following - values[:, t]
        ahead = torch.where(counts, delta + gamma * gae_lambda * ahead, ahead)
        following = torch.where(counts, values[:, t], following)
        advantages[:, t] = torch.where(counts, ahead, 0.0)
    return advantages


@torch.no_grad()
def returns(rewards: Tensor, mask: Tensor, gamma: float = 1.0) -> Tensor:
    """Rewards to come, Rₜ = rₜ + γRₜ₊₁, `[B, T]` from `[B, T]`, 0 outside the mask."""
    return gae(rewards, torch.zeros_like(rewards), mask, gamma, 1.0)


@torch.no_grad()
def group_relative(rewards: Tensor, groups: Tensor, scale: bool = True, epsilon: float = 1e-4) -> Tensor:
    """(r − mean of the group) / (deviation of the group + ε), `[B]` (GRPO: Shao et al., 2024); without the division, Dr. GRPO (Liu et al., 2025).

    Args:
        rewards: of completions `[B]`.
        groups: which prompt, from 0, each completes `[B]`; two completions or more of each.
        scale: whether to divide by the deviation, of a sample: n − 1.
        epsilon: beside the deviation, for groups in which rewards hardly differ. Where they are the same, advantages are 0 to the last digit.
    """
    sizes, means = _groups(rewards, groups)
    centred = rewards - means[groups]
    if not scale:
        return centred
    squares = torch.zeros_like(means).index_add(0, groups, centred.square())
    return centred / ((squares / (sizes - 1)).sqrt() + epsilon)[groups]


@torch.no_grad()
def leave_one_out(rewards: Tensor, groups: Tensor) -> Tensor:
    """rᵢ minus the mean of the others of its group, `[B]`; arguments as of `group_relative` (RLOO: Kool et al., 2019; Ahmadian et al., 2024)."""
    sizes, means = _groups(rewards, groups)
    return (rewards - means[groups]) * (sizes / (sizes - 1))[groups]


@torch.no_grad()
def turn_by_turn(rewards: Tensor, mask: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards to come and the groups that they are to be compared in, `[E·T]` each, for `group_relative` and `leave_one_out`.

    What came from turn t on is compared with what came from turn t on in the other episodes of the group, which is 0 where they had
    ended: a baseline that is the same whether an episode goes on or stops, and that depends on nothing it did. Without those that
    had ended it would be biased (`framework.gradients.estimators.turn_index`; verl#7244).

    Args:
        rewards: of turns `[E, T]`.
        mask: `[E, T]` bool.
        groups: which situation, from 0, each episode began in `[E]`; two episodes or more of each.
    """
    to_come = returns(rewards, mask)
    numbers = torch.arange(mask.shape[1], device=groups.device)
    return to_come.flatten(), (groups[:, None] * mask.shape[1] + numbers).flatten()


@torch.no_grad()
def reinforce_plus_plus(rewards: Tensor) -> Tensor:
    """Rewards normalised over the whole batch, `[B]` (REINFORCE++: Hu et al., 2025)."""
    _same(1, rewards=rewards)
    return whiten(rewards)


@torch.no_grad()
def whiten(advantages: Tensor, mask: Tensor | None = None, epsilon: float = 1e-8, least: float = 0.0) -> Tensor:
    """(A − mean) / √(variance + ε) over the places that count, of a shape's own; 0 elsewhere. The variance is of a sample: n − 1.

    A deviation below `least` counts as that, so that what hardly differs is not magnified until it does.
    """
    counts = torch.ones_like(advantages, dtype=torch.bool) if mask is None else mask.bool()
    _same(advantages.ndim, advantages=advantages, mask=counts)
    chosen = advantages[counts]
    variance = ((chosen - chosen.mean()).square().sum() / max(1, len(chosen) - 1)).clamp(min=least**2)
    return torch.where(counts, (advantages - chosen.mean()) * torch.rsqrt(variance + epsilon), 0.0)


def _groups(rewards: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Sizes and mean rewards `[groups]`."""
    _same(1, rewards=rewards, groups=groups)
    sizes = torch.bincount(groups)
    if (sizes[groups] < 2).any():
        raise ValueError("a reward is compared within its group, so every group needs two completions or more")
    least = rewards.new_full((len(sizes),), torch.inf).scatter_reduce(0, groups, rewards, "amin")
    return sizes, least + torch.zeros_like(least).index_add(0, groups, rewards - least[groups]) / sizes  # where all are the same, that is their mean


def _same(rank: int, **tensors: Tensor) -> None:
    """All of one rank and shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != rank for shape in shapes.values()):
        raise ValueError(f"tensors of rank {rank} and of one shape are wanted, not " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))
