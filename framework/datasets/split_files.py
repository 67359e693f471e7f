"""A file to train on, and files for validation and test or rows held out for them: read and checked when first asked for."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, Literal

from framework.config import Fraction, NonNegativeCount, Positive
from framework.datasets import SPLITS
from framework.datasets.checks import FEW
from framework.datasets.files import File, Format, read
from framework.datasets.layout import Layout, Row
from framework.errors import ConfigError, DataError, near


@dataclass(kw_only=True)
class SplitFiles(Generic[Row]):
    """Rows from CSV, JSON Lines, JSON or Parquet.

    Where no file is given for validation or test, rows are held out of `path`: by a hash of what must not be in two splits, so that the
    order of rows does not matter.

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
        if self.validation_share * (not self.validation) + self.test_share * (not self.test) >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on; together they must be less than 1")
        if self.system is not None and not self.system.strip():
            raise ValueError("system is empty; leave it null for no system prompt")

    @abstractmethod
    def layout(self) -> Layout[Row]:
        """What rows hold."""

    @abstractmethod
    def key(self, row: Row) -> str:
        """What must not be in two splits."""

    @abstractmethod
    def findings(self, rows: Sequence[Row]) -> list[str]:
        """Warnings about the rows of one file."""

    @abstractmethod
    def overlaps(self, splits: Mapping[str, Sequence[Row]]) -> list[str]:
        """Warnings about what stands in two splits."""

    @abstractmethod
    def further(self, row: Row) -> Mapping[str, str]:
        """What a row holds that nothing is learnt from."""

    @property
    def digest(self) -> str:
        """SHA-256 of the file to train on."""
        return self._files["train"].digest

    def rows(self, split: str) -> Sequence[Row]:
        """The rows of a split.

        Raises:
            ConfigError: there is no such split.
            DataError: files that cannot be used; with `strict`, also those that give warnings.
        """
        if split not in SPLITS:
            raise ConfigError("split", f"a file has no split {split!r}{near(split, SPLITS)}")
        return self._checked[split]

    def warnings(self) -> Sequence[str]:
        """First what each file holds besides what is learnt, then all else that ought to be known."""
        kept: dict[tuple[str, ...], list[str]] = {}
        for split, file in self._files.items():
            kept.setdefault(tuple(sorted({name for row in file.rows for name in self.further(row)})), []).append(self._paths[split].name)
        return [*(f"{', '.join(files)}: {', '.join(names)} kept with each row, not learnt" for names, files in kept.items() if names), *self._findings]

    @cached_property
    def _checked(self) -> Mapping[str, Sequence[Row]]:
        if self.strict and self._findings:
            raise DataError("\n  ".join([f"{self.path}: data.strict is set and there are warnings. Mend them, or set data.strict=false", *self._findings]))
        return self._splits

    @cached_property
    def _findings(self) -> Sequence[str]:
        found = [f"{self._paths[split].name}: {told}" for split, file in self._files.items() for told in self.findings(file.rows)]
        if (few := len(self._splits["train"])) < FEW:
            found.append(f"rows to train on: only {few}; hosted fine-tuning asks for {FEW} at least and advises 50")
        return [*found, *self.overlaps(self._splits)]

    @cached_property
    def _splits(self) -> Mapping[str, Sequence[Row]]:
        """Rows by split: of its own file, or held out of the one to train on."""
        rows = self._files["train"].rows
        keys = [self.key(row) for row in rows]
        held_out = self._hold_out(set(keys))
        splits: dict[str, list[Row]] = {"train": [], **{split: list(self._files[split].rows) if split in self._files else [] for split in SPLITS[1:]}}
        for key, row in zip(keys, rows, strict=True):
            splits[held_out.get(key, "train")].append(row)
        return splits

    @cached_property
    def _files(self) -> Mapping[str, File[Row]]:
        how, layout = Format(self.encoding, self.delimiter, self.max_megabytes), self.layout()
        return {split: read(path, how, layout) for split, path in self._paths.items()}

    @cached_property
    def _paths(self) -> Mapping[str, Path]:
        """The files there are, by split."""
        return {split: Path(path).expanduser() for split, path in zip(SPLITS, (self.path, self.validation, self.test), strict=True) if path}

    def _hold_out(self, keys: set[str]) -> Mapping[str, str]:
        """The split of each key that is not trained on: those with the smallest hashes.

        Raises:
            DataError: there are too few.
        """
        order = sorted(keys, key=lambda key: hashlib.blake2b(f"{self.split_seed} {key}".encode(), digest_size=16).digest())
        shares = {"validation": self.validation_share, "test": self.test_share}
        counts = {split: max(1, round(share * len(order))) for split, share in shares.items() if share and split not in self._paths}
        if sum(counts.values()) >= len(order):
            raise DataError(
                f"{self.path}: {len(order)} different prompts are too few to hold some out for {' and '.join(counts)}. "
                "Add rows, name files (data.validation=FILE data.test=FILE), or set data.validation_share=0 data.test_share=0"
            )
        split = [name for name, count in counts.items() for _ in range(count)]
        return dict(zip(order, split, strict=False))
