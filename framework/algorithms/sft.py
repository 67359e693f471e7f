"""Supervised fine-tuning: the language model learns to say what the assistant says, and nothing else of a conversation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from framework.algorithms.optimizer_state import optimizer_tensors, restore_optimizer
from framework.config import Count, Fraction, NonNegative, Positive
from framework.errors import TrainingError
from framework.interfaces import ConversationTuning, LanguageModel, Learning
from framework.types import Ints, Tokens

_TENSORS, _PLAIN = "training.safetensors", "training.json"


@dataclass(kw_only=True)
class SFT(ConversationTuning):
    """Maximum likelihood of the completions (AdamW; warm-up, then a cosine to zero).

    Attributes:
        n_epochs: passes over the data.
        batch_size: conversations an update; their gradient is accumulated over as many passes as memory asks for, each token
            counting the same, so that the split changes nothing.
        learning_rate: at its height.
        warmup: share of the updates in which it rises there.
        weight_decay: of AdamW.
        max_grad_norm: to which gradients are clipped.
    """

    n_epochs: Count
    batch_size: Count
    learning_rate: Positive
    warmup: Fraction
    weight_decay: NonNegative
    max_grad_norm: Positive

    _optimizer: torch.optim.Optimizer | None = field(default=None, init=False, repr=False)
    _done: int = field(default=0, init=False, repr=False)

    def steps(self, examples: int) -> int:
        """See `Tuning`."""
        return self.n_epochs * math.ceil(examples / self.batch_size)

    def learn(self, model: LanguageModel, examples: Sequence[Tokens], run: Learning) -> None:
        """See `Tuning`."""
        learning, total = model.parameters(), self.steps(len(examples))
        self._optimizer, self._done = torch.optim.AdamW(learning, self.learning_rate, weight_decay=self.weight_decay), 0
        if run.resume is not None:
            self._restore(run.resume)
        for step, rows in enumerate(self._batches(len(examples), run.seed)):
            if step < self._done:
                continue
            batch = [examples[row] for row in rows]
            tokens = sum(float(example.weights.sum()) for example in batch)
            loss = 0.0
            for part in model.losses(batch):
                (part / tokens).backward()
                loss += part.item() / tokens
            norm = float(torch.nn.utils.clip_grad_norm_(learning, self.max_grad_norm))
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise TrainingError(f"the loss became {loss} and the gradient {norm} at update {step}; nothing is kept of it. Try a lower algo.learning_rate")
            for group in self._optimizer.param_groups:
                group["lr"] = self.learning_rate * self._schedule(step, total)
            self._optimizer.step()
            self._optimizer.zero_grad()
            self._done = step + 1
            if not run.progress(self._done, {"train/loss": loss, "train/grad_norm": norm, "train/learning_rate": self._optimizer.param_groups[0]["lr"]}):
                return

    def save(self, directory: Path) -> None:
        """See `Tuning`."""
        assert self._optimizer is not None
        save_file({**optimizer_tensors(self._optimizer), "rng": torch.get_rng_state()}, directory / _TENSORS)
        (directory / _PLAIN).write_text(json.dumps({"done": self._done}), encoding="utf-8")

    def _restore(self, directory: Path) -> None:
        assert self._optimizer is not None
        tensors = load_file(directory / _TENSORS)
        restore_optimizer(self._optimizer, tensors)
        torch.set_rng_state(tensors["rng"])
        self._done = int(json.loads((directory / _PLAIN).read_text(encoding="utf-8"))["done"])

    def _schedule(self, step: int, total: int) -> float:
        rising = max(1, round(self.warmup * total))
        return min((step + 1) / rising, 0.5 + 0.5 * math.cos(math.pi * max(0, step - rising) / max(1, total - rising)))

    def _batches(self, n: int, seed: int) -> Iterator[Ints]:
        """Row numbers of every update: each epoch meets each row once, in an order of its own."""
        for epoch in range(self.n_epochs):
            order = np.random.default_rng((seed, epoch)).permutation(n)
            yield from (order[first : first + self.batch_size] for first in range(0, n, self.batch_size))
