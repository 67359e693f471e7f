"""Each distinct line is read once: a table of lines, and a bounded cache of their features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from framework.lm.encoder import LineEncoder
from framework.types import Ints

_LINES, _CACHE = "lines.json", "lines.safetensors"


class LineTable:
    """Numbers lines by what the encoder sees of them, and keeps their features.

    A policy's observations are these numbers: eight bytes a line in a rollout buffer instead of a few thousand, and a minibatch
    shows at a glance which lines it repeats. Number 0 is the empty line. Only features are bounded in memory: those longest
    unused are dropped and read again when asked for.

    Args:
        encoder: the reader; placed and fitted.
        capacity: lines whose features are kept.
    """

    def __init__(self, encoder: LineEncoder, capacity: int) -> None:
        self._encoder, self._capacity = encoder, capacity
        self._by_text: dict[str, int] = {"": 0}
        self._by_tokens: dict[bytes, int] = {}
        self._tokens: list[bytes] = [b""]
        self._row = np.full(1, -1)  # line -> row of the cache, -1 if not there
        self._line = np.zeros(0, np.int64)  # row -> line
        self._used = np.zeros(0, np.int64)  # row -> when last asked for
        self._features: Tensor | None = None
        self._filled = self._clock = 0
        self._stale = False
        self.lines_read = 0  # by the encoder, repeats after eviction counted

    def __len__(self) -> int:
        return len(self._tokens)

    def numbers(self, lines: Sequence[str]) -> list[int]:
        """The number of each line, given anew to lines not met before."""
        known = self._by_text
        new = [line for line in dict.fromkeys(lines) if line not in known]
        for line, tokens in zip(new, self._encoder.tokens(new) if new else [], strict=True):
            if tokens not in self._by_tokens:
                self._by_tokens[tokens] = len(self._tokens)
                self._tokens.append(tokens)
            known[line] = self._by_tokens[tokens]
        return [known[line] for line in lines]

    def features(self, lines: Ints) -> Tensor:
        """Features `[n, K, D]` of distinct lines (never number 0), from the cache where they are there.

        They are float32, or as they are kept where autocast will have matrices in bfloat16 anyway (`framework.precision`).
        An encoder that learns is read anew wherever gradients are wanted; what was cached before is void from then on.
        """
        if self._encoder.trainable and torch.is_grad_enabled():
            self._stale = True
            return self._read(lines)
        if self._stale:
            self._stale, self._filled = False, 0
            self._row.fill(-1)
        if len(lines) > self._capacity:
            return self._read(lines)
        if len(self._row) < len(self._tokens):
            self._row = np.concatenate([self._row, np.full(len(self._tokens) - len(self._row), -1)])
        self._clock += 1
        rows = self._row[lines]
        self._used[rows[rows >= 0]] = self._clock
        if (rows < 0).any() or self._features is None:
            self._store(lines[rows < 0])
        assert self._features is not None
        kept = self._features[torch.as_tensor(self._row[lines])]
        return kept if torch.is_autocast_enabled(kept.device.type) else kept.float()

    def save(self, directory: Path) -> None:
        """Writes the lines and their features, so that a resumed run numbers and reads them as before."""
        (directory / _LINES).write_text(json.dumps(self._by_text), encoding="utf-8")
        if self._features is not None:
            bookkeeping = {"row": self._row, "line": self._line, "used": self._used, "clock": np.array([self._clock, self._filled, self._stale])}
            save_file({"features": self._features, **{key: torch.as_tensor(value) for key, value in bookkeeping.items()}}, directory / _CACHE)

    def load(self, directory: Path) -> None:
        """Restores what `save` wrote, if it did."""
        if (directory / _LINES).exists():
            for line in json.loads((directory / _LINES).read_text(encoding="utf-8")):
                self.numbers([line])
        if (directory / _CACHE).exists():
            kept = load_file(directory / _CACHE)
            self._features = kept["features"]
            self._row, self._line, self._used = (kept[key].numpy() for key in ("row", "line", "used"))
            self._clock, self._filled, stale = kept["clock"].tolist()
            self._stale = bool(stale)

    def _store(self, lines: Ints) -> None:
        fresh = self._read(lines)
        if self._features is None:
            dtype = torch.float32 if self._encoder.trainable else torch.bfloat16
            self._features = torch.zeros(0, *fresh.shape[1:], dtype=dtype, device=fresh.device)
        rows = self._free_rows(len(lines))
        self._features[torch.as_tensor(rows)] = fresh.to(self._features.dtype)
        self._row[lines], self._line[rows], self._used[rows] = rows, lines, self._clock

    def _free_rows(self, n: int) -> Ints:
        """Rows for n new lines: unused ones up to the capacity, then those longest unasked for."""
        assert self._features is not None
        first, last = self._filled, min(self._filled + n, self._capacity)
        if last > len(self._features):
            room = min(max(1_024, 2 * len(self._features), last), self._capacity) - len(self._features)
            self._features = torch.cat([self._features, self._features.new_zeros(room, *self._features.shape[1:])])
            self._line, self._used = (np.concatenate([old, np.zeros(room, np.int64)]) for old in (self._line, self._used))
        self._filled = last
        rows = np.arange(first, last)
        if len(rows) < n:
            self._used[rows] = self._clock
            oldest = np.argpartition(self._used, n - len(rows) - 1)[: n - len(rows)]
            self._row[self._line[oldest]] = -1
            rows = np.concatenate([rows, oldest])
        return rows

    def _read(self, lines: Ints) -> Tensor:
        self.lines_read += len(lines)
        return self._encoder.encode([self._tokens[line] for line in lines])
