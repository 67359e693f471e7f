"""A reader that remembers: each distinct line is read once, whatever the number of networks that stand on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from framework.lm.encoder import LineEncoder


class ReadOnce(LineEncoder):
    """A frozen reader that is placed and fitted once; to place or to fit it again changes nothing.

    Args:
        reader: whose features are kept.
        device: where it reads.
        lines: its statistics are fitted on.

    Raises:
        ValueError: the reader learns, so that a line does not stay as it was read.
    """

    def __init__(self, reader: LineEncoder, device: torch.device, lines: Sequence[str]) -> None:
        super().__init__()
        if reader.trainable:
            raise ValueError("a reader that learns cannot be shared between rewards; use adapter=frozen")
        reader.place(device)
        reader.fit(lines)
        self.reader, self.shape = reader, reader.shape
        self._tokens: dict[str, bytes] = {}
        self._features: dict[bytes, Tensor] = {}

    def place(self, device: torch.device) -> None:
        """It has its place."""

    def fit(self, lines: Sequence[str]) -> None:
        """It is fitted."""

    def tokens(self, lines: Sequence[str]) -> list[bytes]:
        """See `LineEncoder`."""
        if new := [line for line in dict.fromkeys(lines) if line not in self._tokens]:
            self._tokens.update(zip(new, self.reader.tokens(new), strict=True))
        return [self._tokens[line] for line in lines]

    @torch.no_grad()
    def encode(self, tokens: Sequence[bytes]) -> Tensor:
        """See `LineEncoder`; kept in bfloat16, as `LineTable` keeps them."""
        if new := [line for line in dict.fromkeys(tokens) if line not in self._features]:
            self._features.update(zip(new, self.reader.encode(new).bfloat16().unbind(), strict=True))
        return torch.stack([self._features[line] for line in tokens]).float()
