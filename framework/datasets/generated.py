"""Conversations that are written by a rule, as many as are asked for, with no prompt in two splits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from framework.config import Count, NonNegativeCount
from framework.datasets import SPLITS
from framework.datasets.controls import controls
from framework.errors import ConfigError
from framework.interfaces import DataSource
from framework.types import Conversation

_DRAWS = 50  # a row, before a split is said to be larger than what there is to say


@dataclass(frozen=True)
class Sizes:
    """Rows of each split."""

    train: Count
    validation: Count
    test: Count


class GeneratedSource(DataSource):
    """Written conversations; a subclass says how one is written, and scores.

    Args:
        sizes: rows of each split.
        seed: of what is written; the same for every run that is to be compared.
    """

    def __init__(self, sizes: Sizes, seed: NonNegativeCount) -> None:
        self.sizes, self.seed = sizes, seed
        self._rows: dict[str, Sequence[Conversation]] = {}

    @abstractmethod
    def write(self, split: str, rng: np.random.Generator) -> Iterator[Conversation]:
        """Endless conversations of a split."""

    def conversations(self, split: str) -> Sequence[Conversation]:
        """Rows of a split, whose prompts are all different and in no split before it.

        Raises:
            ConfigError: there is not that much to write.
        """
        for number, name in enumerate(SPLITS[: SPLITS.index(split) + 1]):
            if name not in self._rows:
                self._rows[name] = self._fresh(name, np.random.default_rng([self.seed, number]))
        return self._rows[split]

    def baselines(self, split: str) -> Mapping[str, Sequence[str]]:
        """The two controls of `framework.datasets.controls`."""
        return controls(self.conversations("train"), self.conversations(split))

    def _fresh(self, split: str, rng: np.random.Generator) -> list[Conversation]:
        seen = {_asked(row) for rows in self._rows.values() for row in rows}
        size, rows = getattr(self.sizes, split), []
        for drawn, row in enumerate(self.write(split, rng)):
            if (asked := _asked(row)) not in seen:
                seen.add(asked)
                rows.append(row)
            if len(rows) == size:
                break
            if drawn > _DRAWS * size:
                raise ConfigError(
                    f"data.sizes.{split}", f"{size} prompts were asked for, but there are hardly more than {len(rows)} that differ; ask for fewer"
                )
        return rows


def one(choices: Sequence[str], rng: np.random.Generator) -> str:
    """One of some texts, each as likely as the others."""
    return choices[int(rng.integers(len(choices)))]


def _asked(row: Conversation) -> tuple[str, ...]:
    return tuple(message.content for message in row.prompt)
