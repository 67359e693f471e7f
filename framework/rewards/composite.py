"""`reward=composite`: a weighted sum of rewards, with gates and a sequence if wanted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from framework.errors import ConfigError, near
from framework.interfaces import RewardModel
from framework.types import Floats, Step


class Composite(RewardModel):
    """The weighted sum of its parts. A turn from which any part abstains, counted or not, has no reward.

    Args:
        parts: rewards by name.
        weights: of each part by the same names.
        gates: by the names of parts, what each must be above; where one is not, the turn is paid zero.
        sequence: names of parts; each counts only where all that stand before it are above zero.
    """

    def __init__(self, parts: dict[str, RewardModel], weights: dict[str, float], gates: dict[str, float], sequence: list[str]) -> None:
        if not parts or parts.keys() != weights.keys():
            raise ValueError(f"parts and weights must have the same names, not {', '.join(parts) or 'none'} and {', '.join(weights) or 'none'}")
        for setting, names in {"gates": gates, "sequence": sequence}.items():
            for name in names:
                if name not in parts:
                    raise ValueError(f"{setting}: there is no part {name!r}{near(name, parts)}")
        if len(set(sequence)) < len(sequence):
            raise ValueError(f"sequence: a part may stand in it once, not {', '.join(sequence)}")
        self.parts, self.weights, self.gates, self.sequence = parts, weights, gates, sequence
        self._paid: dict[str, list[float]] = defaultdict(list)

    def prepare(self, observations: Sequence[str]) -> None:
        """See `RewardModel`.

        Raises:
            ConfigError: of a part, which is named.
        """
        for name, part in self.parts.items():
            try:
                part.prepare(observations)
            except ConfigError as error:
                raise ConfigError(f"reward.parts.{name}", str(error)) from error
        self.words = any(part.words for part in self.parts.values())

    def expect(self, turns: Sequence[Step]) -> None:
        """See `RewardModel`."""
        for part in self.parts.values():
            part.expect(turns)

    def score(self, turns: Sequence[Step]) -> Floats:
        """See `RewardModel`."""
        scores = {name: np.asarray(part.score(turns), dtype=np.float64) for name, part in self.parts.items()}
        for name, score in scores.items():
            self._paid[name].extend(score[np.isfinite(score)])
        counted = {name: self.weights[name] * score for name, score in scores.items()}
        reached = np.ones(len(turns), dtype=bool)
        for name in self.sequence:
            counted[name] = np.where(reached, counted[name], 0.0)
            reached &= scores[name] > 0
        total = np.sum(list(counted.values()), axis=0)
        for name, least in self.gates.items():
            total = np.where(scores[name] > least, total, 0.0)
        return np.where(np.isnan(list(scores.values())).any(axis=0), np.nan, total)

    def doubts(self, turns: Sequence[Step]) -> Mapping[str, Floats]:
        """Those of its parts."""
        return {f"{name}/{sign}": found for name, part in self.parts.items() for sign, found in part.doubts(turns).items()}

    def metrics(self) -> Mapping[str, float]:
        """The mean of each part before its weight, and what the parts say themselves."""
        means = {name: float(np.mean(paid)) for name, paid in self._paid.items() if paid}
        self._paid.clear()
        return means | {f"{name}/{key}": value for name, part in self.parts.items() for key, value in part.metrics().items()}
