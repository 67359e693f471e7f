"""Odds-ratio preference optimisation: `algo=orpo`. Learns the chosen completions, and from the rejected ones what to keep away from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from framework import losses
from framework.algorithms.preference_descent import Compared, PreferenceDescent
from framework.interfaces import LanguageModel
from framework.types import Pair


@dataclass(kw_only=True)
class ORPO(PreferenceDescent):
    """Likelihood of the chosen completion and odds against the rejected one, without a reference (Hong et al., 2024).

    `beta` is the weight of the odds beside the likelihood; a completion's reward is `beta` times its mean log-likelihood.
    """

    def prepare(self, model: LanguageModel, pairs: Sequence[Pair]) -> Sequence[Pair]:
        """See `PreferenceTuning`; there is nothing to know."""
        return pairs

    def terms(self, pairs: Compared) -> Tensor:
        """See `PreferenceDescent`."""
        chosen, rejected = pairs.means.unbind(1)
        return losses.orpo(chosen, rejected, self.beta)

    def rewards(self, pairs: Compared) -> Tensor:
        """See `PreferenceDescent`."""
        return self.beta * pairs.means
