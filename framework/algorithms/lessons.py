"""Supervised warm start of a policy that acts in words: `warm_start=sft`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from framework.algorithms.sft import SFT
from framework.config import Count, Fraction, Positive
from framework.errors import ConfigError
from framework.interfaces import Learning, Policy, SpeakingPolicy, WarmStart
from framework.types import Demonstration, Ints


class _InOrder(SFT):
    """Takes examples as they come: turns of one episode, what was shown in which begins alike, are then read once."""

    def batches(self, seed: int) -> Iterator[Ints]:
        """See `Descent`."""
        return iter(np.split(np.arange(self._examples), range(self.batch_size, self._examples, self.batch_size)))


class Lessons(WarmStart):
    """The language model learns to say the best act of demonstrated situations (`framework.algorithms.sft`); the critic is not touched.

    Args:
        demonstrations: situations, each read once.
        batch_size: situations an update.
        learning_rate: at its height.
        warmup: share of the updates in which it rises there; then it falls as a cosine to zero.
        max_grad_norm: to which gradients are clipped.
    """

    def __init__(self, demonstrations: Count, batch_size: Count, learning_rate: Positive, warmup: Fraction, max_grad_norm: Positive) -> None:
        self.demonstrations = demonstrations
        self.sft = _InOrder(n_epochs=1, batch_size=batch_size, learning_rate=learning_rate, warmup=warmup, weight_decay=0.0, max_grad_norm=max_grad_norm)

    def steps(self, policy: Policy) -> int:
        """See `WarmStart`."""
        return self.sft.steps(self.demonstrations)

    def fit(self, policy: Policy, demonstrations: Iterator[Demonstration], tell: Callable[[int, str], None]) -> None:
        """See `WarmStart`.

        Raises:
            ConfigError: the policy does not speak.
        """
        if not isinstance(policy, SpeakingPolicy):
            raise ConfigError("warm_start", f"needs a policy that acts through a language model (policy=generative), not {type(policy).__name__}")
        lessons = [policy.lesson(shown.observation, int(shown.action_values.argmax())) for shown in itertools.islice(demonstrations, self.demonstrations)]

        def progress(done: int, metrics: Mapping[str, float]) -> bool:
            tell(done, f"loss {metrics['train/loss']:.3f}")
            return True

        self.sft.learn(policy.lm, lessons, Learning(progress, int(torch.randint(2**31, ())), torch.device("cpu")))
