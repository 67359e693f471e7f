"""Supervised warm start of a policy that acts in words: `warm_start=sft`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from framework.algorithms.comprehension import Comprehension
from framework.algorithms.sft import SFT
from framework.config import Count, Fraction, NonNegative, Positive
from framework.errors import ConfigError
from framework.interfaces import LanguageModel, Learning, Policy, SpeakingPolicy, WarmStart
from framework.types import Demonstration, Ints, Tokens


@dataclass(kw_only=True)
class SpokenSFT(SFT):
    """Takes examples as they come: turns of one episode, what was shown in which begins alike, are then read once.

    Attributes:
        weight: of what is to be told besides from the states at the ends of prompts.
        comprehension: tells it; None: nothing is to be told.
    """

    weight: float
    comprehension: Comprehension | None = None

    def batches(self, seed: int) -> Iterator[Ints]:
        """See `Descent`."""
        return iter(np.split(np.arange(self._examples), range(self.batch_size, self._examples, self.batch_size)))

    def beside(self) -> Sequence[torch.nn.Parameter]:
        """See `SFT`."""
        return list(self.comprehension.parameters()) if self.comprehension else ()

    def losses(self, model: LanguageModel, batch: Sequence[Tokens], rows: Ints) -> Iterator[Tensor]:
        """See `SFT`."""
        if self.comprehension is None:
            yield from super().losses(model, batch, rows)
            return
        weights = torch.as_tensor(np.concatenate([example.weights[example.weights != 0] for example in batch]), dtype=torch.float32)
        weights /= weights.sum()
        for part in model.score(batch):
            told = self.comprehension(part.states, torch.as_tensor(rows)[part.examples.cpu()])
            yield self.weight * len(part.examples) / len(batch) * told - weights.to(part.logprobs.device)[part.draws] @ part.logprobs


class Lessons(WarmStart):
    """The language model learns to say the best act of demonstrated situations (`framework.algorithms.sft`); the critic is not touched.

    Args:
        demonstrations: situations, each read once.
        batch_size: situations an update.
        learning_rate: at its height.
        warmup: share of the updates in which it rises there; then it falls as a cosine to zero.
        max_grad_norm: to which gradients are clipped.
        reading: weight of a lesson in reading: how well the information state, component by component, can be told from the language model's state
            at the end of what it was shown (`framework.algorithms.comprehension`).
    """

    def __init__(
        self, demonstrations: Count, batch_size: Count, learning_rate: Positive, warmup: Fraction, max_grad_norm: Positive, reading: NonNegative
    ) -> None:
        self.demonstrations = demonstrations
        self.sft = SpokenSFT(
            n_epochs=1, batch_size=batch_size, learning_rate=learning_rate, warmup=warmup, weight_decay=0.0, max_grad_norm=max_grad_norm, weight=reading
        )

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
        shown = list(itertools.islice(demonstrations, self.demonstrations))
        examples = list[Tokens]()
        for each in shown:
            examples.append(policy.lesson(each.observation, int(each.action_values.argmax())))
            if len(examples) % 1_000 == 0:
                tell(0, f"{len(examples):,} of {len(shown):,} lessons written")
        device = next((parameter.device for parameter in policy.lm.parameters()), torch.device("cpu"))
        if self.sft.weight:
            self.sft.comprehension = Comprehension(np.array([each.state for each in shown]), policy.lm.width).to(device)

        def progress(done: int, metrics: Mapping[str, float]) -> bool:
            tell(done, f"loss {metrics['train/loss']:.3f}")
            return True

        self.sft.learn(policy.lm, examples, Learning(progress, int(torch.randint(2**31, ())), device))
