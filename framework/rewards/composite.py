"""`reward=composite`: a weighted sum of rewards, with a gate if wanted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from framework.errors import near
from framework.interfaces import RewardModel
from framework.types import Floats, Step


class Composite(RewardModel):
    """The weighted sum of its parts; where the gate does not hold, zero. A turn from which any part abstains has no reward.

    Args:
        parts: rewards by name.
        weights: of each part by the same names.
        gate: the part that must be above zero for anything to be paid; None: there is no gate.
    """

    def __init__(self, parts: dict[str, RewardModel], weights: dict[str, float], gate: str | None) -> None:
        if not parts or parts.keys() != weights.keys():
            raise ValueError(f"parts and weights must have the same names, not {', '.join(parts) or 'none'} and {', '.join(weights) or 'none'}")
        if gate is not None and gate not in parts:
            raise ValueError(f"gate: there is no part {gate!r}{near(gate, parts)}")
        self.parts, self.weights, self.gate = parts, weights, gate
        self._paid: dict[str, list[float]] = defaultdict(list)

    def prepare(self, observations: Sequence[str]) -> None:
        """See `RewardModel`."""
        for part in self.parts.values():
            part.prepare(observations)

    def expect(self, turns: Sequence[Step]) -> None:
        """See `RewardModel`."""
        for part in self.parts.values():
            part.expect(turns)

    def score(self, turns: Sequence[Step]) -> Floats:
        """See `RewardModel`."""
        scores = {name: np.asarray(part.score(turns), dtype=np.float64) for name, part in self.parts.items()}
        for name, score in scores.items():
            self._paid[name].extend(score[np.isfinite(score)])
        total = np.sum([self.weights[name] * score for name, score in scores.items()], axis=0)
        return total if self.gate is None else np.where((scores[self.gate] > 0) | np.isnan(total), total, 0.0)

    def doubts(self, turns: Sequence[Step]) -> Mapping[str, Floats]:
        """Those of its parts."""
        return {f"{name}/{sign}": found for name, part in self.parts.items() for sign, found in part.doubts(turns).items()}

    def metrics(self) -> Mapping[str, float]:
        """The mean of each part before its weight, and what the parts say themselves."""
        means = {name: float(np.mean(paid)) for name, paid in self._paid.items() if paid}
        self._paid.clear()
        return means | {f"{name}/{key}": value for name, part in self.parts.items() for key, value in part.metrics().items()}
