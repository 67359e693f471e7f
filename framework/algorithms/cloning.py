"""Behaviour cloning of demonstrations: a warm start, and a baseline that any claim for reinforcement learning must beat."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from framework.algorithms.networks import network_policy
from framework.config import Count, NonNegative, Positive
from framework.interfaces import Policy, WarmStart
from framework.types import Demonstration


class Cloning(WarmStart):
    """Fits the policy's scores to soft-optimal acts.

    The target is softmax(Q / T): acts that are nearly as good as the best are nearly as right. T is `temperature` times the mean
    gap between the best and the average act, so that it means the same in every world's unit. The critic is not touched.

    Args:
        demonstrations: situations.
        epochs: passes over them.
        batch_size: situations a step.
        learning_rate: at the start; falls linearly to zero.
        weight_decay: of AdamW.
        temperature: see above.
    """

    def __init__(
        self, demonstrations: Count, epochs: Count, batch_size: Count, learning_rate: Positive, weight_decay: NonNegative, temperature: Positive
    ) -> None:
        self.demonstrations, self.epochs, self.batch_size = demonstrations, epochs, batch_size
        self.learning_rate, self.weight_decay, self.temperature = learning_rate, weight_decay, temperature
        if batch_size > demonstrations:
            raise ValueError(f"batch_size {batch_size} is more than the {demonstrations} demonstrations")
        self.steps = epochs * (demonstrations // batch_size)

    def fit(self, policy: Policy, demonstrations: Iterator[Demonstration], tell: Callable[[int, str], None]) -> None:
        """See `WarmStart`."""
        learner = network_policy(policy, "warm_start")
        shown = list(itertools.islice(demonstrations, self.demonstrations))
        encoded = torch.as_tensor(learner.encode([d.observation for d in shown], np.stack([d.mask for d in shown])))
        targets = self._targets(np.stack([d.action_values for d in shown]))
        learning = [parameter for parameter in learner.network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=self.steps)
        learner.network.train()
        step = 0
        for _ in range(self.epochs):
            for rows in torch.randperm(len(shown)).split(self.batch_size):
                if len(rows) < self.batch_size:
                    continue
                scores, _ = learner.network(encoded[rows])
                loss = cross_entropy(scores, targets[rows].to(scores.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                tell(step := step + 1, f"loss {loss.item():.3f}")
        learner.network.eval()

    def _targets(self, values: np.ndarray) -> torch.Tensor:
        allowed = np.isfinite(values)
        mean = np.where(allowed, values, 0).sum(axis=1) / allowed.sum(axis=1)
        gap = (values.max(axis=1) - mean).mean()
        return torch.softmax(torch.as_tensor(values / (self.temperature * gap), dtype=torch.float32), dim=1)
