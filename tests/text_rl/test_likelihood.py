"""Scores of names: against plain forward passes, with the mask, and shared between equal observations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from speakers import ACTS, OneTurn, algorithm, learn, picker
from torch.distributions import Categorical

from framework.types import Conversation, Message, Observations


def shown(texts: list[str], masks: list[list[bool]]) -> Observations:
    return Observations(texts, np.array(masks), np.zeros((len(texts), 0), np.int64))


@pytest.mark.parametrize("normalize", ["none", "tokens", "words"])
def test_scores_are_those_of_plain_passes(normalize: Any, micro: Path) -> None:
    policy = picker(micro, normalize=normalize)
    model, expected = policy.lm.model, []  # type: ignore[attr-defined]
    for name in ACTS[:2]:
        example = policy.lm.encode(Conversation((Message("user", "go"), Message("assistant", name))))
        ids, counted = torch.from_numpy(example.ids), example.weights[1:] > 0
        logprobs = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0][torch.from_numpy(counted)]
        expected.append(logprobs.sum() if normalize in ("none", "words") else logprobs.mean())  # each name is one word
    (part,) = policy.score(policy.say(shown(["go"] * 3, [[True, True, False]] * 3)))
    distribution = torch.stack(expected).log_softmax(0)
    assert all(min(abs(float(found) - float(wanted)) for wanted in distribution.detach()) < 1e-4 for found in part.logprobs.detach())


def test_what_was_picked_is_as_likely_when_scored_again_and_forbidden_acts_never_are(micro: Path) -> None:
    policy = picker(micro)
    rng = np.random.default_rng(0)
    masks = [[True, *map(bool, row)] for row in rng.integers(2, size=(70, 2))]
    observations = shown([["go", "go\na", "go\nb"][number % 3] for number in range(70)], masks)
    said = policy.say(observations)
    assert all(masks[row][utterance.act] for row, utterance in enumerate(said))
    parts = list(policy.score(said))
    logprobs = torch.cat([part.logprobs for part in parts]).detach()
    torch.testing.assert_close(logprobs, torch.tensor([float(utterance.logprobs[0]) for utterance in said]), rtol=0, atol=2e-5)
    assert torch.equal(torch.cat([part.draws for part in parts]), torch.arange(70))
    states = torch.cat([part.states for part in parts])
    torch.testing.assert_close(states, policy.states(observations.texts), rtol=0, atol=2e-5)
    torch.testing.assert_close(states, torch.from_numpy(np.stack([utterance.state for utterance in said])), rtol=0, atol=2e-5)  # type: ignore[misc]
    assert all(masks[row][act] for row, act in enumerate(policy.act(observations, deterministic=True)))


def test_the_entropy_told_is_that_of_the_policy(micro: Path) -> None:
    policy, told, episodes = picker(micro, normalize="none"), dict[str, float](), 512  # longer names are less likely, so the three are not alike
    (said,) = policy.say(shown(["go"], [[True] * 3]))
    likely = policy.logprobs([replace(said, act=act) for act in range(3)])
    assert 0.1 < Categorical(logits=likely).entropy() < 1  # in nats; three that are alike have 1.1
    spread = float((likely.exp() * (likely - (likely.exp() @ likely)).square()).sum().sqrt())
    reinforce = algorithm("reinforce", n_groups=episodes // 2, group_size=2, total_steps=episodes)
    learn(policy, OneTurn, reinforce, lambda _, metrics: told.update(metrics) is None)
    assert told["rollout/entropy"] == pytest.approx(float(Categorical(logits=likely).entropy()), abs=4 * spread / episodes**0.5)
