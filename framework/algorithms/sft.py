"""Supervised fine-tuning: the language model learns to say what the assistant says, and nothing else of a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from framework.algorithms.descent import Descent
from framework.interfaces import ConversationTuning, LanguageModel, Learning
from framework.types import Ints, Tokens


@dataclass(kw_only=True)
class SFT(Descent, ConversationTuning):
    """Maximum likelihood of the completions; each token of a batch counts the same. Its settings are those of `Descent`."""

    def learn(self, model: LanguageModel, examples: Sequence[Tokens], run: Learning) -> None:
        """See `ConversationTuning`."""
        self.begin([*model.parameters(), *self.beside()], len(examples), run)
        for rows in self.batches(run.seed):
            loss = 0.0
            for part in self.losses(model, [examples[row] for row in rows], rows):
                part.backward()
                loss += part.item()
            metrics = self.update(loss)
            if not run.progress(self.done, metrics):
                return

    def beside(self) -> Sequence[torch.nn.Parameter]:
        """What learns beside the language model."""
        return ()

    def losses(self, model: LanguageModel, batch: Sequence[Tokens], rows: Ints) -> Iterator[Tensor]:
        """Parts of the loss of some examples, which of all `rows` tells."""
        tokens = sum(float(example.weights.sum()) for example in batch)
        return (part / tokens for part in model.losses(batch))
