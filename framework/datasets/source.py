"""A file of prompts and completions, or of chats, as a source of conversations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from framework.config import Fraction, NonNegativeCount, Positive
from framework.controls import controls
from framework.datasets.answers import token_f1
from framework.datasets.checks import FEW, findings, overlaps, prompt_key
from framework.datasets.files import File, Format, read
from framework.errors import ConfigError, DataError, near
from framework.interfaces import DataSource
from framework.statistics import bootstrap
from framework.types import Conversation, Estimate

_SPLITS = ("train", "validation", "test")


@dataclass(kw_only=True)
class FileSource(DataSource):
    """Conversations from CSV, JSON Lines, JSON or Parquet, read and checked when first asked for.

    Where no file is given for validation or test, rows are held out of `path`: by a hash of their prompt, so that the same prompt is
    never in two splits and the order of rows does not matter.

    Attributes:
        path: the file to train on.
        validation: a file of its own for this split, or None.
        test: the same.
        validation_share: share of different prompts to hold out where there is no file.
        test_share: the same.
        split_seed: another number, another choice of prompts.
        encoding: of text files, as Python names it.
        delimiter: of CSV; None: a comma, or a tab in a .tsv file.
        max_megabytes: size beyond which a file is refused.
        system: a system prompt for every row that does not bring its own.
        strict: whether warnings are errors.
    """

    path: str
    validation: str | None = None
    test: str | None = None
    validation_share: Fraction = 0.1
    test_share: Fraction = 0.1
    split_seed: NonNegativeCount = 0
    encoding: str = "utf-8"
    delimiter: Literal["comma", "semicolon", "tab", "pipe"] | None = None
    max_megabytes: Positive = 512
    system: str | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        self.name = Path(self.path).stem
        try:
            "".encode(self.encoding)
        except (LookupError, UnicodeError) as error:
            raise ValueError(f"encoding {self.encoding!r} is none that Python knows; try utf-8, utf-16 or cp1252") from error
        if sum(self._shares.values()) >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on; together they must be less than 1")
        if self.system is not None and not self.system.strip():
            raise ValueError("system is empty; leave it null for no system prompt")

    @property
    def digest(self) -> str:
        """SHA-256 of the file to train on."""
        return self._files["train"].digest

    def conversations(self, split: str) -> Sequence[Conversation]:
        """See `DataSource`.

        Raises:
            DataError: files that cannot be used; with `strict`, also those that give warnings.
        """
        if split not in _SPLITS:
            raise ConfigError("split", f"a file has no split {split!r}{near(split, _SPLITS)}")
        return self._checked[split]

    def scores(self, answers: Sequence[str], asked: Sequence[Conversation]) -> Mapping[str, Estimate]:
        """Exact match, and the F1 of words (see `framework.datasets.answers`)."""
        f1 = [token_f1(answer, row.completion) for answer, row in zip(answers, asked, strict=True)]
        return {**super().scores(answers, asked), "token_f1": bootstrap(np.array(f1))}

    def baselines(self, split: str) -> Mapping[str, Sequence[str]]:
        """The two controls of `framework.controls`."""
        return controls(self.conversations("train"), self.conversations(split))

    def warnings(self) -> Sequence[str]:
        """See `DataSource`; first what each file holds besides prompts and completions."""
        kept = {self._path(split).name: sorted({name for row in file.rows for name in row.fields}) for split, file in self._files.items()}
        return [*(f"{file}: {', '.join(names)} kept with each row, not learnt" for file, names in kept.items() if names), *self._findings]

    @cached_property
    def _checked(self) -> Mapping[str, Sequence[Conversation]]:
        if self.strict and self._findings:
            raise DataError("\n  ".join([f"{self.path}: data.strict is set and there are warnings. Mend them, or set data.strict=false", *self._findings]))
        return self._splits

    @cached_property
    def _findings(self) -> Sequence[str]:
        found = [f"{self._path(split).name}: {told}" for split, file in self._files.items() for told in findings(file.rows)]
        if (few := len(self._splits["train"])) < FEW:
            found.append(f"rows to train on: only {few}; hosted fine-tuning asks for {FEW} at least and advises 50")
        return [*found, *overlaps(self._splits)]

    @cached_property
    def _splits(self) -> Mapping[str, Sequence[Conversation]]:
        """Rows by split: of its own file, or held out of the one to train on."""
        rows = self._files["train"].rows
        keys = [prompt_key(row) for row in rows]
        held_out = self._hold_out(set(keys))
        splits: dict[str, list[Conversation]] = {"train": [], **{split: list(self._files[split].rows) if split in self._files else [] for split in _SPLITS[1:]}}
        for key, row in zip(keys, rows, strict=True):
            splits[held_out.get(key, "train")].append(row)
        return splits

    @cached_property
    def _files(self) -> Mapping[str, File]:
        how = Format(self.encoding, self.delimiter, self.max_megabytes, self.system)
        return {split: read(self._path(split), how) for split, path in zip(_SPLITS, (self.path, self.validation, self.test), strict=True) if path}

    def _path(self, split: str) -> Path:
        return Path({"train": self.path, "validation": self.validation, "test": self.test}[split] or "").expanduser()

    @property
    def _shares(self) -> Mapping[str, float]:
        """Of prompts to hold out, by split; a split with a file of its own needs none."""
        return {"validation": 0.0 if self.validation else self.validation_share, "test": 0.0 if self.test else self.test_share}

    def _hold_out(self, prompts: set[str]) -> Mapping[str, str]:
        """The split of each prompt that is not trained on: those with the smallest hashes.

        Raises:
            DataError: there are too few.
        """
        order = sorted(prompts, key=lambda prompt: hashlib.blake2b(f"{self.split_seed} {prompt}".encode(), digest_size=16).digest())
        counts = {split: max(1, round(share * len(order))) for split, share in self._shares.items() if share}
        if sum(counts.values()) >= len(order):
            raise DataError(
                f"{self.path}: {len(order)} different prompts are too few to hold some out for {' and '.join(counts)}. "
                "Add rows, name files (data.validation=FILE data.test=FILE), or set data.validation_share=0 data.test_share=0"
            )
        split = [name for name, count in counts.items() for _ in range(count)]
        return dict(zip(order, split, strict=False))
