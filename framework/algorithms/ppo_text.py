"""Proximal policy optimisation in words, with a critic over turns: `algo=ppo_text`.

Credit goes turn by turn: the critic values what is shown before a turn, from the language model's own state at the end of the
prompt, and generalised advantage estimation runs over the turns of an episode. Inside a turn every token has the turn's
advantage and a clipped ratio of its own. Old log-probabilities are those that the tokens were sampled with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from framework.advantages import gae, whiten
from framework.algorithms.policy_gradient import PolicyGradient
from framework.algorithms.turns import Batch, play
from framework.config import Count, Fraction, NonNegative, Positive
from framework.interfaces import Learning, Policy, SpeakingPolicy, World
from framework.losses import clipped_value, k3, mean_of_tokens, ppo

_WARM_UP_PASSES = 20  # over the turns of each batch


@dataclass(frozen=True)
class Details:
    """What PPO does beside what it is; each can be left out to see what it is worth (Huang et al., 2022; in text: Huang et al., 2024, arXiv:2403.17031).

    Attributes:
        scale_rewards: divided by a running standard deviation of the episodes' returns, so that settings mean the same in every world.
        centre_values: the critic says how much a situation is worth beyond the returns' running mean. Far below the truth, as a fresh
            critic is where every episode costs something, every end would look bad and idling good.
        zero_critic: it begins by telling no situation from another.
        whiten: advantages of a batch have mean 0 and deviation 1.
        clip_values: the critic is not led further than `clip_range` by one batch.
        teach_trunk: the critic's gradient reaches the language model; otherwise it makes do with the states there are.
    """

    scale_rewards: bool
    centre_values: bool
    zero_critic: bool
    whiten: bool
    clip_values: bool
    teach_trunk: bool


@dataclass(kw_only=True)
class TextPPO(PolicyGradient):
    """PPO (Schulman et al., 2017; on language models: Ziegler et al., 2019), one clock tick a turn.

    Attributes:
        n_episodes: of a batch.
        batch_size: turns an update, at the most.
        n_epochs: how often each turn is learnt from.
        critic_learning_rate: of the critic's own weights, which are new while the language model's are not.
        gamma: discount from turn to turn.
        gae_lambda: how far to trust rewards over the critic.
        clip_range: how far a ratio may move before it counts no further; for values, in standard deviations of returns.
        vf_coef: weight of the critic's loss.
        critic_warmup: share of the run in which only the critic learns, what episodes came to from states that stay as they are.
        target_kl: nats a draw between the policy that sampled and the one that learns, at 1.5 times which a batch is left; null: never.
        details: see there; `without=` leaves out one.
    """

    n_episodes: Count
    batch_size: Count
    n_epochs: Count
    critic_learning_rate: Positive
    gamma: Fraction
    gae_lambda: Fraction
    clip_range: Positive
    vf_coef: NonNegative
    critic_warmup: Fraction
    target_kl: Positive | None
    details: Details

    def learn(self, policy: Policy, make_world: Callable[[], World], run: Learning) -> None:
        """See `Algorithm`."""
        assert isinstance(policy, SpeakingPolicy)
        self.begin(policy, run)
        if not self.details.zero_critic and run.resume is None:
            policy.critic.apply(redraw)
        worlds = [make_world() for _ in range(self.n_episodes)]
        while self.goes_on(run):
            batch = Batch.of(play(policy, worlds, self.seeds(run.seed, self.n_episodes)), run.device)
            states = policy.states([said.observation for said in batch.said])
            mean, deviation = self.moments(batch)
            rewards = (batch.rewards - self.price(batch, self.reference(policy, batch))) / deviation
            beyond = policy.critic(states)[:, 0].detach()
            values = beyond + mean / deviation
            if self.steps < self.critic_warmup * self.total_steps:
                returns = self.advantages(batch, rewards, values, gae_lambda=1.0) + values
                self.warm_up(policy, states, returns - mean / deviation)
            else:
                advantages = self.advantages(batch, rewards, values, self.gae_lambda)
                returns = advantages + values
                self.improve(policy, batch, whiten(advantages) if self.details.whiten else advantages, returns - mean / deviation, beyond)
            self.account(batch, {**batch.flat(len(batch.played)), "train/explained_variance": _explained(values, returns)})

    def beside(self, policy: SpeakingPolicy) -> list[dict[str, Any]]:
        """The critic."""
        return [{"params": list(policy.critic.parameters()), "lr": self.critic_learning_rate}]

    def improve(self, policy: SpeakingPolicy, batch: Batch, advantages: Tensor, returns: Tensor, values: Tensor) -> None:
        """Learns from a batch, in minibatches; advantages, and returns and old values beyond the mean, are of turns, `[B]`."""
        value_clip = self.clip_range if self.details.clip_values else math.inf
        for said, draws in batch.minibatches(self.batch_size, self.n_epochs):
            weights, numbers = mean_of_tokens(batch.turns[draws]), batch.turns[draws].unique_consecutive()
            kl = 0.0
            for part in policy.score(said):
                at, turns = draws[part.draws], numbers[part.examples]
                terms = ppo(part.logprobs, batch.logprobs[at], advantages[batch.turns[at]], self.clip_range, self.clip_range)
                states = part.states if self.details.teach_trunk else part.states.detach()
                errors = clipped_value(policy.critic(states)[:, 0], values[turns], returns[turns], value_clip)
                loss = weights[part.draws] @ terms + self.vf_coef * errors.sum() / len(said)
                loss.backward()
                self.watch(part, batch.logprobs[at], loss)
                kl += float(weights[part.draws] @ k3(batch.logprobs[at], part.logprobs.detach()))
            if self.target_kl is not None and kl > 1.5 * self.target_kl:
                self.forget()
                return
            self.update()

    def warm_up(self, policy: SpeakingPolicy, states: Tensor, returns: Tensor) -> None:
        """Teaches the critic alone; returns beyond the mean are of turns, `[B]`."""
        for rows in (rows for _ in range(_WARM_UP_PASSES) for rows in torch.randperm(len(states), device="cpu").to(states.device).split(self.batch_size)):
            (policy.critic(states[rows])[:, 0] - returns[rows]).square().mean().backward()
            self.update()

    def advantages(self, batch: Batch, rewards: Tensor, values: Tensor, gae_lambda: float) -> Tensor:
        """By GAE over the turns of each episode, `[B]` from `[B]` each."""
        table, mask = batch.by_episode(rewards)
        return gae(table, batch.by_episode(values)[0], mask, self.gamma, gae_lambda)[mask]

    def moments(self, batch: Batch) -> tuple[float, float]:
        """Mean and standard deviation of all episodes' returns so far, by which values are centred and rewards scaled; 0 and 1 where they are not."""
        count, mean, squares = self._counters.get("returns", (0, 0.0, 0.0))
        for total in batch.totals.tolist():
            count, before = count + 1, mean
            mean += (total - mean) / count
            squares += (total - before) * (total - mean)
        self._counters["returns"] = [count, mean, squares]
        deviation = float((squares / count) ** 0.5) or 1.0  # while they do not differ
        return float(mean) if self.details.centre_values else 0.0, deviation if self.details.scale_rewards else 1.0


def redraw(layer: torch.nn.Module) -> None:
    """A linear layer's weights by chance, as torch draws them."""
    if isinstance(layer, torch.nn.Linear):
        layer.reset_parameters()


def _explained(values: Tensor, returns: Tensor) -> float:
    """Share of the variance of returns; 1 where there is none."""
    variance = float(returns.var())
    return 1 - float((returns - values).var()) / variance if variance > 1e-6 else 1.0
