"""Nouns: the records that parts exchange. Frozen, with shapes beside the fields; B is a batch, A the number of acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Observations:
    """What a batch of environments shows before an act."""

    texts: Sequence[str]  # [B] one fact or utterance a line
    masks: Bools  # [B, A] acts that are allowed
    states: Ints  # [B, K] information states: for oracles and scripted references; no learner reads them


@dataclass(frozen=True, slots=True)
class Transition:
    """What one act did to a world."""

    reward_terms: Mapping[str, float]  # named, in the world's unit; their sum is the reward
    costs: Mapping[str, float] = field(default_factory=dict)  # safety constraints, apart from the reward
    terminated: bool = False
    proxy: float = 0.0  # what the exploitable stand-in for the reward would pay


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a reason may rest on: phrases that the situation bears out, and phrases that it contradicts."""

    true: Sequence[str] = ()
    false: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ActionEvaluation:
    """What a policy thinks of given acts; every field is differentiable."""

    logprobs: torch.Tensor  # [B]
    entropy: torch.Tensor  # [B] nats
    values: torch.Tensor  # [B]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a policy of known worth earns, exactly or by roll-out, and what it costs an episode."""

    value: float
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of an episode's story."""

    observation: str
    act: str
    reward_terms: Mapping[str, float]
    costs: Mapping[str, float]
    proxy: float = 0.0


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode as it was played, with the value that evaluation gives it (see `framework.evaluation`)."""

    seed: int
    steps: Sequence[Step]
    value: float


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A situation as an expert knows it: what each act is worth there, and what an ideal reader gathers from the text."""

    observation: str
    mask: Bools  # [A]
    action_values: Floats  # [A]; -inf where the act is not allowed
    state: tuple[int, ...]  # the information state
