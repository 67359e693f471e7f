"""The loop that direct preference methods share: `algo=dpo|kto|orpo`, each of which says what a pair's loss is.

The prompt of a pair is read once for both completions, and once for all pairs of a pass that ask the same (`framework.lm.layout`).
What the reference makes of the pairs never changes, and is computed once, before anything is learnt.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from framework.algorithms.descent import Descent
from framework.config import Positive
from framework.interfaces import LanguageModel, Learning, PreferenceTuning
from framework.types import Liking, Pair


@dataclass(frozen=True, slots=True)
class Compared:
    """Some pairs of a batch, as many as one training pass holds: both completions of each, the better one first."""

    logprobs: Tensor  # [b, 2] log-likelihoods, nats; differentiable
    reference: Tensor  # [b, 2] the same under the model as it was
    lengths: Tensor  # [b, 2] tokens
    distance: Tensor  # scalar, see `PreferenceDescent.distance`

    @property
    def ratios(self) -> Tensor:
        """log π(y) − log π_ref(y), `[b, 2]`."""
        return self.logprobs - self.reference

    @property
    def means(self) -> Tensor:
        """Log-likelihoods, a mean over tokens, `[b, 2]`."""
        return self.logprobs / self.lengths

    def turned(self) -> Compared:
        """The same pairs the other way round."""
        return Compared(self.logprobs.flip(1), self.reference.flip(1), self.lengths.flip(1), self.distance)


@dataclass(kw_only=True)
class PreferenceDescent(Descent, PreferenceTuning):
    """Mean loss over pairs. A pair whose label is not 1 is taken to that share for the right way round, and else for the wrong one
    (conservative DPO: Mitchell, 2023), so that a tie pulls to neither side.

    Attributes:
        beta: how strongly the reference holds.
    """

    beta: Positive

    @abstractmethod
    def terms(self, pairs: Compared) -> Tensor:
        """A loss for each pair, `[b]`."""

    def rewards(self, pairs: Compared) -> Tensor:
        """What the model is taken to reward both completions with, `[b, 2]`."""
        return self.beta * pairs.ratios

    def distance(self, model: LanguageModel, batch: Sequence[Pair]) -> Tensor:
        """How far the model has gone from what it was, a scalar in nats, where the loss wants to know."""
        return torch.zeros(())

    def prepare(self, model: LanguageModel, pairs: Sequence[Pair]) -> Sequence[Pair]:
        """See `PreferenceTuning`: what the model makes of them now is the reference."""
        return [replace(pair, reference=(first, second)) for pair, (first, second) in zip(pairs, logprobs(model, pairs).tolist(), strict=True)]

    def learn(self, model: LanguageModel, pairs: Sequence[Pair], run: Learning) -> None:
        """See `PreferenceTuning`."""
        self.begin(model.parameters(), len(pairs), run)
        for rows in self.batches(run.seed):
            batch = [pairs[row] for row in rows]
            loss, rewards = 0.0, []
            for part, losses in self.compare(model, batch):
                mean = losses.sum() / len(batch)
                mean.backward()
                loss += mean.item()
                rewards.append(self.rewards(part).detach())
            metrics = self.update(loss) | told(torch.cat(rewards))
            if not run.progress(self.done, metrics):
                return

    @torch.no_grad()
    def judge(self, model: LanguageModel, pairs: Sequence[Pair]) -> Liking:
        """See `PreferenceTuning`."""
        found = [(losses, self.rewards(part), part.means) for part, losses in self.compare(model, pairs)]
        return Liking(*(torch.cat(each).double().cpu().numpy() for each in zip(*found, strict=True)))

    def compare(self, model: LanguageModel, batch: Sequence[Pair]) -> Iterator[tuple[Compared, Tensor]]:
        """Pairs and their losses `[b]`, in parts to be sent backward before the next is drawn."""
        distance = self.distance(model, batch)
        for part in model.likelihoods([(pair.chosen, pair.rejected) for pair in batch]):
            here, put = [batch[number] for number in part.groups.tolist()], part.logprobs.new_tensor
            lengths = [[pair.chosen.weights.sum(), pair.rejected.weights.sum()] for pair in here]
            found = Compared(part.logprobs, put([pair.reference for pair in here]), put(lengths), distance)
            right = put([pair.label for pair in here])
            yield found, right * self.terms(found) + (1 - right) * self.terms(found.turned())


@torch.no_grad()
def logprobs(model: LanguageModel, pairs: Sequence[Pair]) -> Tensor:
    """Log-likelihoods of both completions of each pair, `[N, 2]`, without gradients."""
    return torch.cat([part.logprobs for part in model.likelihoods([(pair.chosen, pair.rejected) for pair in pairs])])


def told(rewards: Tensor) -> dict[str, float]:
    """What is to be told of a batch: rewards `[b, 2]` in the mean, their margin, and the share of pairs in which the chosen one's is higher."""
    margins = rewards[:, 0] - rewards[:, 1]
    return {
        "train/reward_chosen": float(rewards[:, 0].mean()),
        "train/reward_rejected": float(rewards[:, 1].mean()),
        "train/reward_margin": float(margins.mean()),
        "train/reward_accuracy": float((margins > 0).float().mean()),
    }
