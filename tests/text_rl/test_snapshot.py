"""Policies that act in words, as they were: kept apart from what learns on, and measured against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from speakers import PricedProbe, PricedTurn, fresh, picker, speaker

from framework.departure import departure
from framework.lm.adapters import Full, Lora
from framework.rewards.gold import Gold
from framework.types import Observations

SHOWN = Observations(["go"] * 64, np.ones((64, 3), bool), np.zeros((64, 1), np.int64))


def nudge(parameters: list[torch.nn.Parameter], by: float) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter += by * torch.randn_like(parameter)


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=2)], ids=["full", "lora"])
def test_a_snapshot_stays_as_the_policy_was(adapter: Full | Lora, micro: Path) -> None:
    policy = fresh(micro, adapter=adapter)
    kept = policy.snapshot()
    said = policy.say(SHOWN)
    before = policy.logprobs(said)
    nudge(list(policy.lm.parameters()), 0.1)
    assert torch.equal(kept.logprobs(said), before) and not torch.allclose(policy.logprobs(said), before, atol=1e-3)
    assert not any(parameter.requires_grad for parameter in kept.lm.parameters()) and not kept.lm.parameters()
    assert [each.tokens.ids.tolist() for each in kept.say(SHOWN)] and policy.lm.parameters()


@pytest.mark.slow
def test_the_divergence_of_who_picks_is_that_of_the_distributions(micro: Path) -> None:
    policy = picker(micro)
    start = policy.snapshot()
    nudge(list(policy.lm.parameters()), 0.3)
    now, before = (next(iter(each._scored(["go"], SHOWN.masks[:1])))[0].double().log_softmax(1) for each in (policy, start))
    exact = (now.exp() * (now - before)).sum().item()
    found = departure(policy, start, PricedProbe(PricedTurn), Gold(), 4_000)
    assert exact > 0.01 and found["kl"] == pytest.approx(exact, rel=0.15)


@pytest.mark.slow
def test_the_divergence_of_who_writes_is_that_of_what_is_said(taught: Path) -> None:
    policy = speaker(taught)
    start = policy.snapshot()
    assert departure(policy, start, PricedProbe(PricedTurn), Gold(), 50)["kl"] == pytest.approx(0.0, abs=1e-6)
    nudge(list(policy.lm.parameters()), 0.1)
    torch.manual_seed(0)
    said = [each for _ in range(40) for each in policy.say(SHOWN)]
    ratios = (policy.logprobs(said) - start.logprobs(said)).double().sum() / len(said)  # log π(y) - log π_start(y) has the divergence for a mean
    found = departure(policy, start, PricedProbe(PricedTurn), Gold(), 2_000)
    assert ratios > 0.01 and found["kl"] == pytest.approx(float(ratios), rel=0.25)
