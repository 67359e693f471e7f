"""Kahneman-Tversky optimisation: `algo=kto`. Each completion is judged by itself, as desirable or not, against what is to be had elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from framework import losses
from framework.algorithms.preference_descent import Compared, PreferenceDescent, logprobs
from framework.config import NonNegative
from framework.interfaces import LanguageModel
from framework.types import Pair, Tokens


@dataclass(kw_only=True)
class KTO(PreferenceDescent):
    """The chosen completion of a pair is desirable and the rejected one is not; that they answer the same is not made use of (Ethayarajh et al., 2024).

    Attributes:
        desirable_weight: what a desirable completion counts.
        undesirable_weight: what an undesirable one counts.
    """

    desirable_weight: NonNegative
    undesirable_weight: NonNegative

    def prepare(self, model: LanguageModel, pairs: Sequence[Pair]) -> Sequence[Pair]:
        """See `PreferenceTuning`; each prompt also gets the completions of another, from half the data away."""
        away = (len(pairs) + 1) // 2
        others = [exchanged(pair, pairs[(number + away) % len(pairs)], model.context) for number, pair in enumerate(pairs)]
        known = zip(super().prepare(model, pairs), super().prepare(model, others), strict=True)
        return [replace(pair, other=other) for pair, other in known]

    def distance(self, model: LanguageModel, batch: Sequence[Pair]) -> Tensor:
        """See `PreferenceDescent`: the mean log-ratio of completions of other prompts, which stands for KL(π ‖ π_ref), and is 0 at least."""
        others = [pair.other for pair in batch if pair.other is not None]
        found = logprobs(model, others)
        return (found - found.new_tensor([other.reference for other in others])).mean().clamp(min=0)

    def terms(self, pairs: Compared) -> Tensor:
        """See `PreferenceDescent`; a mean over both completions."""
        desirable = torch.tensor([True, False], device=pairs.logprobs.device).expand_as(pairs.logprobs)
        found = losses.kto(pairs.ratios.flatten(), desirable.flatten(), pairs.distance, self.beta, self.desirable_weight, self.undesirable_weight)
        return found.view_as(pairs.logprobs).mean(1)


def exchanged(pair: Pair, other: Pair, context: int) -> Pair:
    """The prompt of a pair gone on with as in another, cut to what a model can read."""
    prompt = pair.chosen.ids[: _begins(pair.chosen)]

    def side(said: Tokens) -> Tokens:
        ids, weights = said.ids[_begins(said) :], said.weights[_begins(said) :]
        return Tokens(np.concatenate([prompt, ids])[:context], np.concatenate([np.zeros(len(prompt)), weights])[:context])

    return Pair(side(other.chosen), side(other.rejected))


def _begins(example: Tokens) -> int:
    return int(np.flatnonzero(example.weights)[0])
