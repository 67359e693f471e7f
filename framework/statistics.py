"""Intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from framework.types import Estimate


def bootstrap(values: ArrayLike, seed: int = 0, resamples: int = 2_000) -> Estimate:
    """Mean and 95 % percentile bootstrap interval (Efron, 1979); a point where there is nothing to resample."""
    sample = np.asarray(values, float)
    if len(sample) < 2 or np.ptp(sample) == 0:
        return Estimate(float(sample.mean()), float(sample.mean()), float(sample.mean()))
    found = stats.bootstrap((sample,), np.mean, n_resamples=resamples, batch=100, method="percentile", rng=np.random.default_rng(seed))
    return Estimate(float(sample.mean()), float(found.confidence_interval.low), float(found.confidence_interval.high))


def bootstrap_ratio(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0, resamples: int = 2_000) -> Estimate:
    """Ratio of two sums over the same rows, `[N]` each, with its 95 % percentile bootstrap interval over rows."""
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    rows = np.random.default_rng(seed).integers(len(above), size=(resamples, len(above)))
    low, high = np.quantile(above[rows].sum(axis=1) / below[rows].sum(axis=1), [0.025, 0.975])
    return Estimate(float(above.sum() / below.sum()), float(low), float(high))


def correlation(x: ArrayLike, y: ArrayLike, seed: int = 0, resamples: int = 2_000) -> Estimate:
    """Pearson's correlation of pairs and its 95 % percentile bootstrap interval; 0 where either side is constant."""
    pairs = np.stack([np.asarray(x, float), np.asarray(y, float)])  # [2, N]
    chosen = np.random.default_rng(seed).integers(pairs.shape[1], size=(resamples, pairs.shape[1]))
    low, high = np.percentile([_pearson(pairs[:, rows]) for rows in chosen], [2.5, 97.5])
    return Estimate(_pearson(pairs), float(low), float(high))


def _pearson(pairs: NDArray[np.float64]) -> float:
    centred = pairs - pairs.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).sum(axis=1).prod())
    return float(centred.prod(axis=0).sum() / spread) if spread > 1e-12 else 0.0
