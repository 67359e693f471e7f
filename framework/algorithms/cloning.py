"""Behaviour cloning of demonstrations: a warm start, and a baseline that any claim for reinforcement learning must beat."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from framework.algorithms.comprehension import Comprehension
from framework.config import Count, NonNegative, NonNegativeCount, Positive
from framework.errors import ConfigError
from framework.interfaces import NetworkPolicy, Policy, WarmStart
from framework.precision import computing
from framework.types import Demonstration, Floats


class Cloning(WarmStart):
    """Fits the policy's scores to soft-optimal acts, and what it reads to what is to be read; the critic is not touched.

    The target is softmax(Q / T): acts that are nearly as good as the best are nearly as right. T is `temperature` times the mean
    gap between the best and the average act, so that it means the same in every world's unit. The head learns on the reader as it
    is, whose features are kept. If the reader has an adapter, both learn first, for some dearer steps, after one pass of the head
    alone: a head that already knows every wording by heart would leave the reader nothing to learn.

    Args:
        demonstrations: situations.
        epochs: passes of the head over them.
        batch_size: situations a step.
        learning_rate: at the start; falls linearly to zero.
        weight_decay: of AdamW.
        temperature: see above.
        lessons: weight of reading: how well the information state, component by component, can be told from what was read. The
            classifiers that tell it are thrown away; the policy acts on text alone.
        reader_steps: steps in which the reader's adapter learns too.
        reader_batch_size: situations in each of them.
        reader_learning_rate: at their start; falls linearly to zero.
    """

    def __init__(
        self,
        demonstrations: Count,
        epochs: Count,
        batch_size: Count,
        learning_rate: Positive,
        weight_decay: NonNegative,
        temperature: Positive,
        lessons: NonNegative,
        reader_steps: NonNegativeCount,
        reader_batch_size: Count,
        reader_learning_rate: Positive,
    ) -> None:
        if max(batch_size, reader_batch_size) > demonstrations:
            raise ValueError(f"batch_size {batch_size} and reader_batch_size {reader_batch_size} must not exceed the {demonstrations} demonstrations")
        self.demonstrations, self.batch_size, self.learning_rate = demonstrations, batch_size, learning_rate
        self.weight_decay, self.temperature, self.lessons = weight_decay, temperature, lessons
        self.reader_steps, self.reader_batch_size, self.reader_learning_rate = reader_steps, reader_batch_size, reader_learning_rate
        self.head_steps = epochs * (demonstrations // batch_size)

    def steps(self, policy: Policy) -> int:
        """See `WarmStart`."""
        learns = _learner(policy).network.lm.trainable
        return self.head_steps + (self.demonstrations // self.batch_size + self.reader_steps if learns else 0)

    def fit(self, policy: Policy, demonstrations: Iterator[Demonstration], tell: Callable[[int, str], None]) -> None:
        """See `WarmStart`."""
        learner = _learner(policy)
        shown = list(itertools.islice(demonstrations, self.demonstrations))
        encoded = torch.as_tensor(learner.encode([d.observation for d in shown], np.stack([d.mask for d in shown])))
        targets = self._targets(np.stack([d.action_values for d in shown]))
        meaning = learner.network.read(encoded[:1])[0]
        lessons = Comprehension(np.array([d.state for d in shown]), meaning.shape[1]).to(meaning.device)
        phases = [(True, self.head_steps, self.batch_size, self.learning_rate)]
        if learner.network.lm.trainable:
            first = (True, self.demonstrations // self.batch_size, self.batch_size, self.learning_rate)
            phases = [first, (False, self.reader_steps, self.reader_batch_size, self.reader_learning_rate), *phases]
        done = 0
        for held, steps, batch_size, rate in phases:
            learner.network.hold_reader(held)
            for step, loss in enumerate(self._descend(learner, encoded, targets, lessons, steps, batch_size, rate), start=done + 1):
                tell(step, f"loss {loss:.3f}")
            done += steps
        learner.network.hold_reader(False)

    def _descend(
        self, learner: NetworkPolicy, encoded: Tensor, targets: Tensor, lessons: Comprehension, steps: int, batch_size: int, rate: float
    ) -> Iterator[float]:
        """Cross-entropy to the targets, step by step over shuffled demonstrations."""
        learning = [parameter for parameter in (*learner.network.parameters(), *lessons.parameters()) if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, rate, weight_decay=self.weight_decay, fused=True)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        learner.network.train()
        for rows in _batches(len(encoded), batch_size, steps):
            with computing(learning[0].device):
                meaning, mask = learner.network.read(encoded[rows])
            meaning = meaning.float()
            scores = learner.network.score(meaning, mask)
            loss = cross_entropy(scores, targets[rows].to(scores.device))
            optimizer.zero_grad()
            (loss + self.lessons * lessons(meaning, rows) if self.lessons else loss).backward()
            optimizer.step()
            schedule.step()
            yield loss.item()
        learner.network.eval()

    def _targets(self, values: Floats) -> Tensor:
        allowed = np.isfinite(values)
        mean = np.where(allowed, values, 0).sum(axis=1) / allowed.sum(axis=1)
        gap = (values.max(axis=1) - mean).mean()
        return torch.softmax(torch.as_tensor(values / (self.temperature * gap), dtype=torch.float32), dim=1)


def _learner(policy: Policy) -> NetworkPolicy:
    if not isinstance(policy, NetworkPolicy):
        raise ConfigError("warm_start", f"needs a policy with a network (policy=head), not {type(policy).__name__}; use warm_start=sft, or none")
    return policy


def _batches(n: int, size: int, steps: int) -> Iterator[Tensor]:
    """Whole batches of fresh permutations, as many as there are steps."""
    made = 0
    while True:
        for rows in torch.randperm(n)[: n - n % size].split(size):
            if made == steps:
                return
            made += 1
            yield rows
