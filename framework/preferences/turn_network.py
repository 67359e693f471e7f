"""What a turn is worth, from the features of its lines: small networks, several of them side by side.

A turn is an observation, whose lines are a set, and an act, which is one line more. Each distinct line is read once and projected once,
whatever the number of turns it stands in. M members of one shape see the same turns at the same time: their weights have a member
dimension, and what the reader gives is shared. M: members, T: turns, U: distinct lines, F = K · D: features of a line, W: width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding_bag, layer_norm

from framework.config import Count, Fraction
from framework.lm.encoder import LineEncoder
from framework.lm.lines import LineTable
from framework.preferences.mahalanobis import distance, fitted_to
from framework.preferences.trajectories import Turn
from framework.types import Ints


@dataclass(frozen=True)
class Shape:
    """How large a network is.

    Attributes:
        network: `linear`: bilinear in the sum of an observation's lines and in the act's line; `mlp`: with layers between.
        width: W.
        dropout: of line features, while it learns.
    """

    network: Literal["linear", "mlp"] = "mlp"
    width: Count = 128
    dropout: Fraction = 0.1


class MemberLinear(nn.Module):
    """M linear layers: `[M, N, in]`, or `[N, in]` that all of them see, to `[M, N, out]`."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """See above."""
        return x @ self.weight + self.bias


@dataclass(frozen=True)
class Places:
    """Where the lines of turns are found among rows of features."""

    lines: Tensor  # rows, one turn's after the other's
    offsets: Tensor  # [T] where each turn's begin
    acts: Tensor  # [T] rows

    def sums(self, rows: Tensor) -> Tensor:
        """The sum over each observation's lines, `[M, T, W]` of `[M, U, W]`."""
        members, _, width = rows.shape
        flat = embedding_bag(self.lines, rows.transpose(0, 1).flatten(1), self.offsets, mode="sum")
        return flat.view(-1, members, width).transpose(0, 1)


@dataclass(frozen=True)
class Seen:
    """What members see in T turns, of A distinct acts."""

    observed: Tensor  # [M, T, W] in each observation
    acts: Tensor  # [M, A, W] in each act
    which: Tensor  # [T] the act of each turn

    @property
    def done(self) -> Tensor:
        """What they see in each turn's act, `[M, T, W]`."""
        return self.acts[:, self.which]


class Bilinear(nn.Module):
    """(Pᵀ Σx + p) · (Qᵀa + q) / W, with the features x of an observation's lines and a of the act's: both main effects are in it.

    What is summed up there is what the network makes of a turn.
    """

    def __init__(self, members: int, features: int, width: int) -> None:
        super().__init__()
        self.observation, self.act = (MemberLinear(members, features, width) for _ in range(2))

    def see(self, features: Tensor, places: Places) -> Seen:
        """Observations and acts apart, from `[U, F]`."""
        distinct, which = places.acts.unique(return_inverse=True)
        return Seen(places.sums(features @ self.observation.weight) + self.observation.bias, self.act(features[distinct]), which)

    def embed(self, seen: Seen) -> Tensor:
        """What it makes of turns, `[M, T, W]`."""
        return seen.observed * seen.done

    def score(self, embedded: Tensor) -> Tensor:
        """Scores `[M, T]` of what was made of turns."""
        return embedded.mean(dim=2)


class Perceptron(nn.Module):
    """The evidence of independent lines adds up, as in the policy's head; a small network weighs it against the act."""

    def __init__(self, members: int, features: int, width: int) -> None:
        super().__init__()
        self.line, self.act = (nn.Sequential(MemberLinear(members, features, width), nn.ReLU(), MemberLinear(members, width, width)) for _ in range(2))
        self.both = nn.Sequential(MemberLinear(members, 3 * width, width), nn.ReLU())
        self.last = MemberLinear(members, width, 1)

    def see(self, features: Tensor, places: Places) -> Seen:
        """Observations and acts apart, from `[U, F]`."""
        distinct, which = places.acts.unique(return_inverse=True)
        observed, acts = (layer_norm(part, part.shape[-1:]) for part in (places.sums(self.line(features)), self.act(features[distinct])))
        return Seen(observed, acts, which)

    def embed(self, seen: Seen) -> Tensor:
        """What it makes of turns, `[M, T, W]`."""
        observed, done = seen.observed, seen.done
        embedded: Tensor = self.both(torch.cat([observed, done, observed * done], dim=2))
        return embedded

    def score(self, embedded: Tensor) -> Tensor:
        """Scores `[M, T]` of what was made of turns."""
        scores: Tensor = self.last(embedded).squeeze(2)
        return scores


_NETWORKS: Mapping[str, type[Bilinear | Perceptron]] = {"linear": Bilinear, "mlp": Perceptron}


class TurnNetwork(nn.Module):
    """Reader, line table and M networks: turns in, scores out.

    Args:
        reader: of lines; placed and fitted.
        members: M.
        shape: of each.
        cache: lines whose features are kept.
    """

    def __init__(self, reader: LineEncoder, members: int, shape: Shape, cache: int) -> None:
        super().__init__()
        self.reader, self.lines = reader, LineTable(reader, cache)
        self.dropout = nn.Dropout(shape.dropout)
        self.networks = _NETWORKS[shape.network](members, reader.shape[0] * reader.shape[1], shape.width)
        self.register_buffer("centre", torch.zeros(members, shape.width))
        self.register_buffer("precision", torch.zeros(members, shape.width, shape.width))

    def numbers(self, turns: Sequence[Turn]) -> list[Ints]:
        """For each turn the number of its act's line, then those of its observation's lines; empty lines say nothing."""
        texts = [[act.replace("\n", " "), *(line for line in observation.split("\n") if line)] for observation, act in turns]
        numbers = iter(self.lines.numbers([line for lines in texts for line in lines]))
        return [np.array([next(numbers) for _ in lines]) for lines in texts]

    def forward(self, seen: Seen) -> Tensor:
        """Scores `[T, M]` of turns as `see` gives them."""
        scores: Tensor = self.networks.score(self.networks.embed(seen)).T
        return scores

    @torch.no_grad()
    def remember(self, numbers: Sequence[Ints]) -> None:
        """Keeps where the turns lie that it was fitted to, see `framework.preferences.mahalanobis`."""
        self.centre, self.precision = fitted_to(self.networks.embed(self.see(numbers)))

    def judge(self, numbers: Sequence[Ints]) -> tuple[Tensor, Tensor]:
        """Scores `[T, M]`, and how far turns lie from those remembered, `[T]`, mean over members, see `framework.preferences.mahalanobis`."""
        embedded = self.networks.embed(self.see(numbers))
        scores: Tensor = self.networks.score(embedded).T
        return scores, distance(embedded, self.centre, self.precision).mean(dim=0)

    def see(self, numbers: Sequence[Ints]) -> Seen:
        """What the members see in turns as `numbers` gives them."""
        distinct, rows = np.unique(np.concatenate(numbers), return_inverse=True)
        empty = int(distinct[0] == 0)  # the number of no line: its features are nought
        features = self.lines.features(distinct[empty:]).flatten(1)
        features = self.dropout(nn.functional.pad(features, (0, 0, empty, 0)))
        starts = np.cumsum([0, *(len(turn) for turn in numbers[:-1])])
        lines, offsets = np.delete(rows, starts), starts - np.arange(len(numbers))
        places = Places(*(torch.as_tensor(part, device=features.device) for part in (lines, offsets, rows[starts])))
        seen: Seen = self.networks.see(features, places)
        return seen


class Imitation(nn.Module):
    """Which of the acts at hand belongs to what was observed? A lesson for those who see, thrown away when it is learnt.

    A few thousand pairs are few to learn reading from; which act whom they chose took is in each of their turns. That a reward generalises better
    which goes on telling what the chosen side said is what Yang et al. found (2024, arXiv:2406.10216).
    """

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.belongs = MemberLinear(members, width, width)

    def forward(self, seen: Seen) -> Tensor:
        """Cross-entropy of each turn's act among the A acts, `[T, M]`."""
        logits = self.belongs(seen.observed) @ seen.acts.mT / seen.acts.shape[2] ** 0.5
        return cross_entropy(logits.permute(1, 2, 0), seen.which[:, None].expand(-1, len(logits)), reduction="none")
