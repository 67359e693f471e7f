"""Supervised fine-tuning: the language model learns to say what the assistant says, and nothing else of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from framework.algorithms.descent import Descent
from framework.interfaces import ConversationTuning, LanguageModel, Learning
from framework.types import Tokens


@dataclass(kw_only=True)
class SFT(Descent, ConversationTuning):
    """Maximum likelihood of the completions; each token of a batch counts the same. Its settings are those of `Descent`."""

    def learn(self, model: LanguageModel, examples: Sequence[Tokens], run: Learning) -> None:
        """See `ConversationTuning`."""
        self.begin(model.parameters(), len(examples), run)
        for rows in self.batches(run.seed):
            batch = [examples[row] for row in rows]
            tokens = sum(float(example.weights.sum()) for example in batch)
            loss = 0.0
            for part in model.losses(batch):
                (part / tokens).backward()
                loss += part.item() / tokens
            metrics = self.update(loss)
            if not run.progress(self.done, metrics):
                return
