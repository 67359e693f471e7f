"""Advantages against plain loops over one sequence at a time, and against TRL's arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from framework import advantages
from framework.advantages import gae, group_relative, leave_one_out, reinforce_plus_plus, returns, turn_by_turn, whiten

B, T = 6, 9


def episodes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rewards, values, a mask with gaps and padding, and values of where sequences were cut off."""
    draw = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(B, T, generator=draw) for _ in range(2))
    mask = torch.rand(B, T, generator=draw) < 0.7
    mask[:, 7:] = False
    return rewards, values, mask, torch.randn(B, generator=draw)


def loop(rewards: Tensor, values: Tensor, mask: Tensor, last: Tensor, gamma: float, trust: float) -> Tensor:
    found = torch.zeros_like(values)
    for b in range(len(rewards)):
        places = [t for t in range(rewards.shape[1]) if mask[b, t]]
        ahead = 0.0
        for i in reversed(range(len(places))):
            t = places[i]
            following = float(last[b]) if i == len(places) - 1 else float(values[b, places[i + 1]])
            delta = float(rewards[b, t]) + gamma * following - float(values[b, t])
            ahead = delta + gamma * trust * ahead
            found[b, t] = ahead
    return found


@pytest.mark.parametrize(("gamma", "trust"), [(1.0, 0.95), (0.9, 0.8), (0.9, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("cut", [True, False])
def test_gae_equals_a_plain_loop(gamma: float, trust: float, cut: bool) -> None:
    rewards, values, mask, last = episodes()
    last = last if cut else torch.zeros(B)
    expected = loop(rewards, values, mask, last, gamma, trust)
    torch.testing.assert_close(gae(rewards, values, mask, gamma, trust, last if cut else None), expected)


def test_gae_by_hand() -> None:
    found = gae(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]]), torch.ones(1, 2), 0.5, 0.5)
    torch.testing.assert_close(found, torch.tensor([[0.5 * 0.25 - 0.5 + 0.25 * 0.75, 0.75]]))


def test_returns_by_hand() -> None:
    found = returns(torch.tensor([[1.0, 2.0, 4.0], [1.0, 9.0, 1.0]]), torch.tensor([[1, 1, 1], [1, 0, 1]]), 0.5)
    torch.testing.assert_close(found, torch.tensor([[3.0, 4.0, 4.0], [1.5, 0.0, 1.0]]))


def test_group_relative_by_hand_whatever_the_order() -> None:
    rewards, groups = torch.tensor([1.0, 5.0, 3.0, 5.0, 5.0]), torch.tensor([0, 1, 0, 1, 1])
    torch.testing.assert_close(group_relative(rewards, groups, scale=False), torch.tensor([-1.0, 0, 1, 0, 0]))
    torch.testing.assert_close(group_relative(rewards, groups), torch.tensor([-1.0, 0, 1, 0, 0]) / (2**0.5 + 1e-4))


def test_leave_one_out_by_hand() -> None:
    found = leave_one_out(torch.tensor([1.0, 2.0, 6.0, 0.0, 4.0]), torch.tensor([0, 0, 0, 1, 1]))
    torch.testing.assert_close(found, torch.tensor([-3.0, -1.5, 4.5, -4.0, 4.0]))


@pytest.mark.parametrize("compare", [group_relative, leave_one_out])
def test_equal_rewards_are_worth_nothing_to_the_last_digit(compare: Callable[[Tensor, Tensor], Tensor]) -> None:
    rewards = torch.tensor([0.1, -35.753, 1e-6, 77_777.7]).repeat_interleave(7)
    assert not compare(rewards, torch.arange(4).repeat_interleave(7)).any()


def test_turn_by_turn_by_hand_and_who_has_ended_counts_as_nothing() -> None:
    rewards, mask = torch.tensor([[1.0, 2.0], [9.0, 9.0], [3.0, 0.0], [1.0, 8.0]]), torch.tensor([[1, 1], [1, 1], [1, 0], [1, 1]])
    to_come, cells = turn_by_turn(rewards, mask, torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(to_come.view(4, 2), torch.tensor([[3.0, 2.0], [18.0, 9.0], [3.0, 0.0], [9.0, 8.0]]))
    expected = torch.tensor([[0.0, 2.0], [9.0, 1.0], [0.0, -2.0], [-9.0, -1.0]])
    torch.testing.assert_close(leave_one_out(to_come, cells).view(4, 2), expected)
    torch.testing.assert_close(group_relative(to_come, cells, scale=False).view(4, 2), expected / 2)


def test_group_advantages_are_those_of_trl() -> None:
    rewards = torch.randn(12, generator=torch.Generator().manual_seed(0))
    groups, grouped = torch.arange(3).repeat_interleave(4), rewards.view(3, 4)
    scaled = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)  # GRPOTrainer, scale_rewards="group"
    others = (grouped.sum(1, keepdim=True) - grouped) / 3  # RLOOTrainer
    torch.testing.assert_close(group_relative(rewards, groups), scaled.flatten())
    torch.testing.assert_close(leave_one_out(rewards, groups), (grouped - others).flatten())


def test_reinforce_plus_plus_normalises_over_the_batch() -> None:
    rewards = torch.tensor([1.0, 3.0, 10.0, 14.0])
    torch.testing.assert_close(reinforce_plus_plus(rewards), (rewards - 7) / rewards.std())


def test_whitening_counts_what_the_mask_says() -> None:
    values, mask = torch.tensor([[1.0, 2.0, 99.0], [3.0, 99.0, 99.0]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    torch.testing.assert_close(whiten(values, mask), torch.tensor([[-1.0, 0, 0], [1, 0, 0]]))
    torch.testing.assert_close(whiten(torch.ones(3)), torch.zeros(3))
    torch.testing.assert_close(whiten(torch.ones(1)), torch.zeros(1))


def test_whitening_magnifies_nothing_that_differs_less_than_it_must() -> None:
    torch.testing.assert_close(whiten(torch.tensor([1.0, 3.0]), least=10.0), torch.tensor([-0.1, 0.1]))
    torch.testing.assert_close(whiten(torch.tensor([-7.0, 0.0, 7.0]), least=2.0), torch.tensor([-1.0, 0.0, 1.0]))


def test_no_gradient_passes() -> None:
    rewards, values, mask, _ = episodes()
    assert not gae(rewards, values.requires_grad_(), mask).requires_grad


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rank 2.*rewards \(3,\)"):
        gae(torch.zeros(3), torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match=r"last_values \(2,\)"):
        gae(torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(3, 2), last_values=torch.zeros(2))
    for function in (advantages.group_relative, advantages.leave_one_out):
        with pytest.raises(ValueError, match="two completions or more"):
            function(torch.zeros(3), torch.tensor([0, 0, 1]))
