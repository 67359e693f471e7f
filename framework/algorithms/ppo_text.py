"""Proximal policy optimisation in words, with a critic over turns: `algo=ppo_text`.

Credit goes turn by turn: the critic values what is shown before a turn, from a language model's state at the end of the prompt, and
generalised advantage estimation runs over the turns of an episode. That model is the policy's, or a second one which begins as the
policy's does and learns from the critic's loss alone. Inside a turn every token has the turn's advantage and a clipped ratio of its
own. Old log-probabilities are those that the tokens were sampled with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from framework.advantages import gae, whiten
from framework.algorithms.own_trunk import OwnTrunk
from framework.algorithms.policy_gradient import PolicyGradient
from framework.algorithms.turns import Batch, play
from framework.config import Count, Fraction, NonNegative, Positive
from framework.interfaces import Learning, Policy, SpeakingPolicy, World
from framework.losses import clipped_value, k3, mean_of_tokens, ppo
from framework.types import Ints

_WARM_UP_PASSES = 20  # over the turns of each batch


@dataclass(frozen=True)
class Details:
    """What PPO does beside what it is; each can be left out to see what it is worth (Huang et al., 2022; in text: Huang et al., 2024, arXiv:2403.17031).

    Attributes:
        scale_rewards: divided by a running standard deviation of the episodes' returns, so that settings mean the same in every world.
        centre_values: the critic says how much a situation is worth beyond the returns' running mean. Far below the truth, as a fresh
            critic is where every episode costs something, every end would look bad and idling good.
        zero_critic: it begins by telling no situation from another.
        whiten: advantages of a batch have mean 0 and deviation 1; where they differ by less than returns have differed so far, they are not
            magnified. A policy that has solved its world would otherwise learn from nothing but its critic's errors, as loudly as from anything.
        clip_values: the critic is not led further than `clip_range` by one batch.
        teach_trunk: the critic's gradient reaches the language model that it reads with; otherwise it makes do with the states there are.
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
        critic_trunk: the language model that the critic reads with: the policy's (`shared`), or a copy of it as it is when learning begins (`own`),
            which costs what learns of it once more, its optimiser's state too, and one more pass over the prompts.
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
    critic_trunk: Literal["shared", "own"]
    critic_warmup: Fraction
    target_kl: Positive | None
    details: Details

    _trunk: OwnTrunk | None = field(default=None, init=False, repr=False)

    def learn(self, policy: Policy, make_world: Callable[[], World], run: Learning) -> None:
        """See `Algorithm`."""
        assert isinstance(policy, SpeakingPolicy)
        self.begin(policy, run)
        if not self.details.zero_critic and run.resume is None:
            policy.critic.apply(redraw)
        worlds = [make_world() for _ in range(self.n_episodes)]
        while self.goes_on(run):
            batch = Batch.of(play(policy, worlds, self.seeds(run.seed, self.n_episodes)), run.device)
            states = self.states(policy, batch)
            mean, deviation = self.moments(batch)
            unit = deviation if self.details.scale_rewards else 1.0
            centre = mean / unit if self.details.centre_values else 0.0
            rewards = (batch.rewards - self.price(batch, self.reference(policy, batch))) / unit
            beyond = policy.critic(states)[:, 0].detach()
            values = beyond + centre
            if self.steps < self.critic_warmup * self.total_steps:
                returns = self.advantages(batch, rewards, values, gae_lambda=1.0) + values
                self.warm_up(policy, states, returns - centre)
            else:
                advantages = self.advantages(batch, rewards, values, self.gae_lambda)
                returns = advantages + values
                learnt = whiten(advantages, least=deviation / unit) if self.details.whiten else advantages
                self.improve(policy, batch, learnt, returns - centre, beyond)
            self.account(batch, {**batch.flat(len(batch.played)), "train/explained_variance": _explained(values, returns)})

    def begin(self, policy: SpeakingPolicy, run: Learning) -> None:
        """See `PolicyGradient`; and what the critic reads with, where that is not the policy's."""
        self._trunk = OwnTrunk(policy.lm) if self.critic_trunk == "own" else None
        super().begin(policy, run)

    def beside(self, policy: SpeakingPolicy) -> list[dict[str, Any]]:
        """The critic, and its trunk where it has one of its own."""
        trunk = [] if self._trunk is None else [{"params": list(self._trunk.lm.parameters()), "lr": self.learning_rate}]
        return [{"params": list(policy.critic.parameters()), "lr": self.critic_learning_rate}, *trunk]

    def states(self, policy: SpeakingPolicy, batch: Batch) -> Tensor:
        """What the critic reads of turns, `[B, D]`, without gradients: of its own trunk, or as the policy's model found it when it spoke."""
        shown = [said.observation for said in batch.said]
        if self._trunk is not None:
            return self._trunk.lm.states(policy.prompts(shown))
        kept = [said.state for said in batch.said if said.state is not None]
        return torch.from_numpy(np.stack(kept)).to(batch.rewards.device) if len(kept) == len(shown) else policy.states(shown)

    def improve(self, policy: SpeakingPolicy, batch: Batch, advantages: Tensor, returns: Tensor, values: Tensor) -> None:
        """Learns from a batch, in minibatches; advantages, and returns and old values beyond the mean, are of turns, `[B]`."""
        prompts = [] if self._trunk is None else policy.prompts([said.observation for said in batch.said])
        for rows in batch.minibatches(self.batch_size, self.n_epochs):
            draws = batch.draws(rows)
            weights, kl = mean_of_tokens(batch.turns[draws]), 0.0
            for part in policy.score(batch.utterances(rows)):
                at, turns = draws[part.draws], rows[part.examples]
                terms = ppo(part.logprobs, batch.logprobs[at], advantages[batch.turns[at]], self.clip_range, self.clip_range)
                loss = weights[part.draws] @ terms
                if self._trunk is None:
                    loss = loss + self.misjudged(policy, part.states, values[turns], returns[turns]) / len(rows)
                loss.backward()
                self.watch(part, batch.logprobs[at], loss)
                kl += float(weights[part.draws] @ k3(batch.logprobs[at], part.logprobs.detach()))
            if self.target_kl is not None and kl > 1.5 * self.target_kl:
                self.forget()
                return
            if self._trunk is not None:
                self.learn_values(policy, self._trunk, [prompts[row] for row in rows.tolist()], values[rows], returns[rows])
            self.update()

    def learn_values(self, policy: SpeakingPolicy, trunk: OwnTrunk, prompts: Sequence[Ints], values: Tensor, returns: Tensor) -> None:
        """The critic's gradient, and that of its own trunk, from turns `[B]`; nothing of the policy's model has a part in it."""
        for states, rows in trunk.read(prompts):
            loss = self.misjudged(policy, states, values[rows], returns[rows]) / len(prompts)
            loss.backward()
            self._sums["train/loss"] += float(loss.detach())

    def misjudged(self, policy: SpeakingPolicy, states: Tensor, values: Tensor, returns: Tensor) -> Tensor:
        """The critic's loss on turns, a sum: from states `[B, D]`, values it told before, and returns, `[B]`."""
        told = policy.critic(states if self.details.teach_trunk else states.detach())[:, 0]
        return self.vf_coef * clipped_value(told, values, returns, self.clip_range if self.details.clip_values else math.inf).sum()

    def save(self, directory: Path) -> None:
        """See `Algorithm`."""
        super().save(directory)
        if self._trunk is not None:
            self._trunk.save(directory)

    def _restore(self, directory: Path) -> None:
        super()._restore(directory)
        if self._trunk is not None:
            self._trunk.load(directory)

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
        """Mean and standard deviation of all episodes' returns so far, by which values are centred and rewards scaled; 1 while they do not differ."""
        count, mean, squares = self._counters.get("returns", (0, 0.0, 0.0))
        for total in batch.totals.tolist():
            count, before = count + 1, mean
            mean += (total - mean) / count
            squares += (total - before) * (total - mean)
        self._counters["returns"] = [count, mean, squares]
        return float(mean), float((squares / count) ** 0.5) or 1.0


def redraw(layer: torch.nn.Module) -> None:
    """A linear layer's weights by chance, as torch draws them."""
    if isinstance(layer, torch.nn.Linear):
        layer.reset_parameters()


def _explained(values: Tensor, returns: Tensor) -> float:
    """Share of the variance of returns; 1 where there is none."""
    variance = float(returns.var())
    return 1 - float((returns - values).var()) / variance if variance > 1e-6 else 1.0
