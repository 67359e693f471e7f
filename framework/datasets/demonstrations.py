"""What the optimal policy of a world says, as conversations to learn from: text in, act in words out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from framework.config import Fraction, NonNegativeCount
from framework.datasets.generated import GeneratedSource, Sizes
from framework.interfaces import Domain
from framework.statistics import bootstrap
from framework.types import Conversation, Estimate, Message
from framework.worlds.free_text import phrasebook_of, sentences


class Demonstrations(GeneratedSource):
    """Observations of a world, answered by its optimum in words; judged by what the act that is understood is worth.

    Args:
        domain: a world with a phrasebook; its test split has other wordings.
        sizes: rows of each split.
        seed: of episodes and words.
        wander: share of acts taken at random, so that situations off the best path are met too; what is said there is still best.
        tolerance: an act counts as optimal that is worth less than the best by no more than this share of what lies between
            random acts and the optimum over an episode.

    Raises:
        ValueError: the world has no phrasebook.
    """

    def __init__(self, domain: Domain, sizes: Sizes, seed: NonNegativeCount, wander: Fraction, tolerance: Fraction) -> None:
        super().__init__(sizes, seed)
        self._book = phrasebook_of(domain)
        self.domain, self.wander, self.tolerance = domain, wander, tolerance
        self.name = f"{domain.environment}-demonstrations"

    def write(self, split: str, rng: np.random.Generator) -> Iterator[Conversation]:
        """Rows whose field `values` is what each act that is allowed is worth, as JSON."""
        for pair in sentences(self.domain, split, int(rng.integers(2**31)), self.wander):
            said = (Message("user", pair["prompt"]), Message("assistant", pair["completion"]))
            yield Conversation(said, fields={"values": pair["values"]})

    def scores(self, answers: Sequence[str], asked: Sequence[Conversation]) -> Mapping[str, Estimate]:
        """`optimal`: understood as an act that is allowed and as good as the best; `understood`: as any act that is allowed."""
        references = self.domain.oracle("train").references
        slack = self.tolerance * (references["optimum"].value - references["random"].value)
        judged = np.array([self._judge(answer, json.loads(row.fields["values"]), slack) for answer, row in zip(answers, asked, strict=True)], float)
        return {"optimal": bootstrap(judged[:, 0]), "understood": bootstrap(judged[:, 1])}

    def _judge(self, answer: str, values: Mapping[str, float], slack: float) -> tuple[bool, bool]:
        meant = self._book.understand(answer)
        act = "" if meant is None else self._book.acts[meant]
        return act in values and values[act] >= max(values.values()) - slack, act in values
