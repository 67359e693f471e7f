"""A file of prompts and completions, or of chats, as a source of conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from framework.datasets.answers import token_f1
from framework.datasets.checks import findings, overlaps, prompt_key
from framework.datasets.controls import controls
from framework.datasets.layout import Layout
from framework.datasets.rows import chats
from framework.datasets.split_files import SplitFiles
from framework.interfaces import DataSource
from framework.statistics import bootstrap
from framework.types import Conversation, Estimate


@dataclass(kw_only=True)
class FileSource(SplitFiles[Conversation], DataSource):
    """Conversations from a file; its settings are those of `SplitFiles`. The same prompt is never in two splits."""

    def conversations(self, split: str) -> Sequence[Conversation]:
        """See `DataSource`; with `strict`, files that give warnings are refused too."""
        return self.rows(split)

    def scores(self, answers: Sequence[str], asked: Sequence[Conversation]) -> Mapping[str, Estimate]:
        """Exact match, and the F1 of words (see `framework.datasets.answers`)."""
        f1 = [token_f1(answer, row.completion) for answer, row in zip(answers, asked, strict=True)]
        return {**super().scores(answers, asked), "token_f1": bootstrap(np.array(f1))}

    def baselines(self, split: str) -> Mapping[str, Sequence[str]]:
        """The two controls of `framework.datasets.controls`."""
        return controls(self.conversations("train"), self.conversations(split))

    def layout(self) -> Layout[Conversation]:
        """See `SplitFiles`."""
        return chats(self.system)

    def key(self, row: Conversation) -> str:
        """See `SplitFiles`."""
        return prompt_key(row)

    def findings(self, rows: Sequence[Conversation]) -> list[str]:
        """See `SplitFiles`."""
        return findings(rows)

    def overlaps(self, splits: Mapping[str, Sequence[Conversation]]) -> list[str]:
        """See `SplitFiles`."""
        return overlaps(splits)

    def further(self, row: Conversation) -> Mapping[str, str]:
        """See `SplitFiles`."""
        return row.fields
