"""What tunings share: AdamW over batches of a data set, with a warm-up and a cosine to zero, which can be interrupted and gone on with exactly."""

from __future__ import annotations

import itertools
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
from framework.interfaces import Learning
from framework.types import Ints

_TENSORS, _PLAIN = "training.safetensors", "training.json"


@dataclass(kw_only=True)
class Descent:
    """Begins, steps and is kept; what the loss is and how a batch is read is the tuning's own.

    Attributes:
        n_epochs: passes over the data.
        batch_size: examples an update; their gradient is accumulated over as many passes as memory asks for, so that the split changes nothing.
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
    _examples: int = field(default=0, init=False, repr=False)
    _done: int = field(default=0, init=False, repr=False)

    def steps(self, examples: int) -> int:
        """Updates of a whole run over so many examples."""
        return self.n_epochs * math.ceil(examples / self.batch_size)

    def begin(self, learning: Sequence[torch.nn.Parameter], examples: int, run: Learning) -> None:
        """An optimiser, and, in a resumed run, all as it was.

        Raises:
            TrainingError: nothing learns.
        """
        if not learning:
            raise TrainingError("nothing of the language model learns; use adapter=lora or adapter=full")
        self._optimizer = torch.optim.AdamW(learning, self.learning_rate, weight_decay=self.weight_decay, fused=True)
        self._examples, self._done = examples, 0
        if run.resume is not None:
            self._restore(run.resume)

    def batches(self, seed: int) -> Iterator[Ints]:
        """Row numbers of every update that is still to come: each epoch meets each row once, in an order of its own."""
        starts = itertools.product(range(self.n_epochs), range(0, self._examples, self.batch_size))
        for epoch, first in itertools.islice(starts, self._done, None):
            order = np.random.default_rng((seed, epoch)).permutation(self._examples)
            yield order[first : first + self.batch_size]

    def update(self, loss: float) -> dict[str, float]:
        """One step of the optimiser along the gradients there are; what is to be told of it.

        Args:
            loss: whose gradients they are.

        Raises:
            TrainingError: loss or gradients are no numbers.
        """
        assert self._optimizer is not None
        norm = float(torch.nn.utils.clip_grad_norm_(self._optimizer.param_groups[0]["params"], self.max_grad_norm))
        if not math.isfinite(loss) or not math.isfinite(norm):
            told = f"the loss became {loss} and the gradient {norm} at update {self._done}"
            raise TrainingError(f"{told}; nothing is kept of it. Try a lower algo.learning_rate")
        rate = self.learning_rate * self._schedule()
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._done += 1
        return {"train/loss": loss, "train/grad_norm": norm, "train/learning_rate": rate}

    @property
    def done(self) -> int:
        """Updates so far."""
        return self._done

    def save(self, directory: Path) -> None:
        """Writes what is needed, beside the model, to go on exactly from here."""
        assert self._optimizer is not None
        save_file({**optimizer_tensors(self._optimizer), "rng": torch.get_rng_state()}, directory / _TENSORS)
        (directory / _PLAIN).write_text(json.dumps({"done": self._done}), encoding="utf-8")

    def _restore(self, directory: Path) -> None:
        assert self._optimizer is not None
        tensors = load_file(directory / _TENSORS)
        restore_optimizer(self._optimizer, tensors)
        torch.set_rng_state(tensors["rng"])
        self._done = int(json.loads((directory / _PLAIN).read_text(encoding="utf-8"))["done"])

    def _schedule(self) -> float:
        total = self.steps(self._examples)
        rising = max(1, round(self.warmup * total))
        return min((self._done + 1) / rising, 0.5 + 0.5 * math.cos(math.pi * max(0, self._done - rising) / max(1, total - rising)))
