"""Acts by how likely a language model finds their names: `policy=likelihood`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical

from framework.config import Count, Positive
from framework.interfaces import Domain, LanguageModel
from framework.lm.actor_critic import SpeakingActorCritic
from framework.types import Bools, Conversation, Ints, Message, Observations, Scores, Tokens, Utterance

_TOGETHER = 32  # observations whose acts are scored in one go


class LikelihoodPolicy(SpeakingActorCritic):
    """A categorical distribution over the acts that are allowed: softmax of the log-likelihoods of their names as replies.

    Every act can be understood, and none that is forbidden can be picked; the model never generates. An act is one draw.

    Args:
        lm: finds names likely.
        domain: names its acts.
        normalize: what a log-likelihood is divided by: nothing (GLAM: Carta et al., 2023), or the name's number of tokens or of words,
            so that long names are not at a disadvantage (TWOSOME: Tan et al., 2024).
        temperature: what the scores are divided by while it learns.
        critic_width: of the critic's layer.
    """

    def __init__(self, lm: LanguageModel, domain: Domain, normalize: Literal["none", "tokens", "words"], temperature: Positive, critic_width: Count) -> None:
        if len(domain.acts) < 2:
            raise ValueError(
                f"{domain.name}/{domain.environment} has one act, so there is nothing to choose; what is answered in words needs policy=generative"
            )
        super().__init__(lm, critic_width)
        self.names, self.normalize, self.temperature = [act.replace("_", " ") for act in domain.acts], normalize, temperature

    @torch.no_grad()
    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        """See `Policy`."""
        if not deterministic:
            return np.array([utterance.act for utterance in self.say(observations)])
        return np.concatenate([scores.argmax(1).cpu().numpy() for scores, _, _ in self._scored(observations.texts, observations.masks)])

    @torch.no_grad()
    def say(self, observations: Observations) -> Sequence[Utterance]:
        """See `SpeakingPolicy`."""
        parts = list(self._scored(observations.texts, observations.masks))
        chosen, states = Categorical(logits=torch.cat([scores for scores, _, _ in parts])), torch.cat([states for _, states, _ in parts])
        acts = chosen.sample()
        rows = zip(observations.texts, observations.masks, acts.tolist(), chosen.log_prob(acts).tolist(), states.cpu().numpy(), strict=True)
        nothing = Tokens(np.zeros(0, np.int64), np.zeros(0))
        return [Utterance(text, mask, act, self.names[act], nothing, np.array([logprob]), "stop", state) for text, mask, act, logprob, state in rows]

    def score(self, utterances: Sequence[Utterance]) -> Iterator[Scores]:
        """See `SpeakingPolicy`."""
        acts = torch.tensor([said.act for said in utterances])
        for scores, states, rows in self._scored([said.observation for said in utterances], [said.mask for said in utterances]):
            yield Scores(Categorical(logits=scores).log_prob(acts.to(rows.device)[rows]), rows, states, rows)

    def prompts(self, texts: Sequence[str]) -> Sequence[Ints]:
        """See `SpeakingPolicy`."""
        return [self.lm.prompt([Message("user", text)]) for text in texts]

    def lesson(self, text: str, act: int) -> Tokens:
        """See `SpeakingPolicy`."""
        return self.lm.encode(Conversation((Message("user", text), Message("assistant", self.names[act]))))

    def _scored(self, texts: Sequence[str], masks: Sequence[Bools] | Bools) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Scores of acts `[B, A]` (-inf: forbidden), states `[B, D]`, and which observations they are of; each distinct one is read once."""
        situations = [(text, tuple(map(bool, mask))) for text, mask in zip(texts, masks, strict=True)]
        for first in range(0, len(situations), _TOGETHER):
            keys = situations[first : first + _TOGETHER]
            distinct = {key: number for number, key in enumerate(dict.fromkeys(keys))}
            scores, states = self._table(list(distinct))
            owners = [distinct[key] for key in keys]
            yield scores[owners], states[owners], torch.arange(first, first + len(keys), device=scores.device)

    def _table(self, situations: Sequence[tuple[str, tuple[bool, ...]]]) -> tuple[Tensor, Tensor]:
        """Scores `[B, A]` and states `[B, D]` of distinct situations, with gradients."""
        places = [(row, act) for row, (_, mask) in enumerate(situations) for act, allowed in enumerate(mask) if allowed]
        examples = [self.lesson(situations[row][0], act) for row, act in places]
        parts = list(self.lm.score(examples))  # acts of one situation may lie in several
        counts = torch.tensor([np.count_nonzero(example.weights) for example in examples])
        owners = torch.arange(len(examples)).repeat_interleave(counts).to(parts[0].logprobs.device)
        sums = torch.zeros(len(examples), device=owners.device)
        for part in parts:
            sums = sums.index_add(0, owners[part.draws], part.logprobs)
        words = torch.tensor([len(self.names[act].split()) for _, act in places])
        divisors = {"none": torch.ones(len(places)), "tokens": counts, "words": words}[self.normalize].to(sums.device)
        rows, acts = (torch.tensor(numbers, device=sums.device) for numbers in zip(*places, strict=True))
        scores = sums.new_full((len(situations), len(self.names)), -torch.inf)
        scores = scores.index_put((rows, acts), sums / divisors / self.temperature)
        found = torch.cat([part.states for part in parts])[torch.cat([part.examples for part in parts]).argsort()]
        firsts = torch.searchsorted(rows, torch.arange(len(situations), device=rows.device))
        return scores, found[firsts]
