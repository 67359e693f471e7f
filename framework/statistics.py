"""Intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from framework.types import Estimate


def bootstrap(values: ArrayLike, seed: int = 0, resamples: int = 2_000) -> Estimate:
    """Mean and 95 % percentile bootstrap interval (Efron, 1979); a point where there is nothing to resample."""
    sample = np.asarray(values, float)
    if len(sample) < 2 or np.ptp(sample) == 0:
        return Estimate(float(sample.mean()), float(sample.mean()), float(sample.mean()))
    found = stats.bootstrap((sample,), np.mean, n_resamples=resamples, batch=100, method="percentile", rng=np.random.default_rng(seed))
    return Estimate(float(sample.mean()), float(found.confidence_interval.low), float(found.confidence_interval.high))
