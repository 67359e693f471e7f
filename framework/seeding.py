"""Seeds: of a run, and of episodes. The episodes of two splits never share a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_SPLITS = ("train", "validation", "test", "shift")  # a recorded split shares the last room: its cases come by number, not by seed
_EPISODES = 2**28  # room of one split


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def chance_apart(seed: int) -> Iterator[None]:
    """For a while torch's draws are those of another seed; afterwards it goes on as if nothing had been drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def episode_seed(split: str, number: int) -> int:
    """Seed of the n-th episode of a split."""
    room = _SPLITS.index(split) if split in _SPLITS else len(_SPLITS)
    return room * _EPISODES + number % _EPISODES


def episode_number(seed: int) -> int:
    """Which episode of its split a seed is of."""
    return seed % _EPISODES
