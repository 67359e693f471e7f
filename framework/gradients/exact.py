"""The exact truth about a policy in a world that is small enough to list, and how far estimates are from it.

π is a table of log-probabilities `[S, A]`, wherever it comes from; P_π(s, s') = Σ_a π(a|s) P(s'|s, a), r_π(s) = Σ_a π(a|s) r(s, a), and μ
is where episodes begin. Nothing is sampled:

    V = (I − P_π)⁻¹ r_π        J = μᵀV        d = (I − P_πᵀ)⁻¹ μ        Q(s, a) = r(s, a) + Σ_s' P(s'|s, a) V(s')
    ∇J = Σ_sa d(s) π(a|s) (Q(s, a) − V(s)) ∇log π(a|s)        (Sutton et al., 2000)
    KL(π ‖ π_ref), of whole episodes = Σ_s d(s) Σ_a π(a|s) (log π(a|s) − log π_ref(a|s))

Every gradient here, exact or estimated, is a sum of coefficients `[S, A]` times the scores ∇log π(a|s) `[S, A, P]`. The scores are
computed once. Lengths and angles between such sums depend on the scores' inner products alone: `coordinates` gives vectors of S·A
numbers with the same ones, so that millions of parameters cost no more than a table's.

S: states; A: acts; O: outcomes of an act; P: parameters; M: estimates; D: coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from framework.oracles.finite import DecisionModel, FiniteProcess, State

_MOST = 2_000  # states of which dense tables are made
_MOST_SIGMAS = 38.0  # beyond which a tail has no probability in float64


@dataclass(frozen=True)
class Tables:
    """A world written down, in float64."""

    states: Sequence[State]  # [S]
    start: Tensor  # [S] μ
    mask: Tensor  # [S, A] acts that are allowed
    chances: Tensor  # [S, A, O] of outcomes, 0 beyond the last
    leads: Tensor  # [S, A, O] which state follows; S: the end
    rewards: Tensor  # [S, A, O]

    @classmethod
    def of(cls, model: DecisionModel) -> Tables:
        """Lists a model.

        Raises:
            ValueError: it has too many states.
        """
        process = FiniteProcess(model)
        states, index = process.states, {state: row for row, state in enumerate(process.states)}
        if len(states) > _MOST:
            raise ValueError(f"{len(states):,} states; exact tables are made of {_MOST:,} at the most")
        mask = torch.from_numpy(process.mask)
        found = {(row, act): list(model.outcomes(states[row], act)) for row, act in mask.nonzero().tolist()}
        shape = (*mask.shape, max(map(len, found.values())))
        start, chances, rewards = torch.zeros(len(states), dtype=torch.float64), *(torch.zeros(shape, dtype=torch.float64) for _ in range(2))
        leads = torch.full(shape, len(states))
        for probability, state in model.openings():
            start[index[state]] += probability
        for (row, act), outcomes in found.items():
            for number, outcome in enumerate(outcomes):
                chances[row, act, number], rewards[row, act, number] = outcome.probability, outcome.reward
                leads[row, act, number] = len(states) if outcome.state is None else index[outcome.state]
        return cls(states, start, mask, chances, leads, rewards)

    @property
    def reward(self) -> Tensor:
        """r(s, a), `[S, A]`; 0 where not allowed."""
        return (self.chances * self.rewards).sum(-1)

    @property
    def moves(self) -> Tensor:
        """P(s' | s, a), `[S, A, S]`; a row sums to less than 1 where the episode may end."""
        flat = torch.zeros(*self.mask.shape, len(self.states) + 1, dtype=torch.float64)
        return flat.scatter_add(-1, self.leads, self.chances)[..., :-1]

    def random(self) -> Tensor:
        """Log-probabilities `[S, A]` of the policy that takes any allowed act with equal chance."""
        return torch.where(self.mask, 0.0, -torch.inf).double().log_softmax(-1)


@dataclass(frozen=True)
class Truth:
    """What there is to know of a policy; differentiable in its log-probabilities."""

    value: Tensor  # J, a scalar
    values: Tensor  # V, [S]
    action_values: Tensor  # Q, [S, A]; 0 where not allowed
    visits: Tensor  # d, [S] expected number of times that an episode comes by
    logprobs: Tensor  # log π, [S, A]; -inf where not allowed

    @property
    def advantages(self) -> Tensor:
        """Q − V, `[S, A]`; 0 where not allowed."""
        return torch.where(self.logprobs > -torch.inf, self.action_values - self.values[:, None], 0.0)

    @property
    def coefficients(self) -> Tensor:
        """Of the policy gradient, `[S, A]`: d(s) π(a|s) A(s, a)."""
        return (self.visits[:, None] * self.logprobs.exp() * self.advantages).detach()

    def kl(self, reference: Tensor) -> Tensor:
        """KL of episodes to those of a reference with log-probabilities `[S, A]`, a scalar, nats."""
        return (self.visits[:, None] * torch.where(self.logprobs > -torch.inf, self.logprobs.exp() * (self.logprobs - reference), 0.0)).sum()


def solve(tables: Tables, logprobs: Tensor) -> Truth:
    """All about a policy, from two linear systems over the states.

    Args:
        tables: the world.
        logprobs: of the policy, `[S, A]`, -inf where not allowed.
    """
    policy, moves, reward = logprobs.double().exp(), tables.moves, tables.reward
    away = torch.eye(len(tables.states), dtype=torch.float64) - torch.einsum("sa,sat->st", policy, moves)
    values = torch.linalg.solve(away, (policy * reward).sum(-1))
    visits = torch.linalg.solve(away.T, tables.start)
    return Truth(tables.start @ values, values, reward + moves @ values, visits, logprobs.double())


def scores(rows: Iterable[Tensor], mask: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Log-probabilities `[S, A]`, and their gradients by the parameters laid end to end, `[S, A, P]`; 0 where not allowed.

    Args:
        rows: for each state in turn, differentiable log-probabilities of its acts, `[A]`.
        mask: acts that are allowed, `[S, A]`.
        parameters: by which gradients are taken.
    """
    found, logprobs = torch.zeros(*mask.shape, sum(parameter.numel() for parameter in parameters)), torch.full(mask.shape, -torch.inf, dtype=torch.float64)
    for state, (row, allowed) in enumerate(zip(rows, mask, strict=True)):
        logprobs[state] = torch.where(allowed, row.detach().double().cpu(), -torch.inf)
        for act in allowed.nonzero()[:, 0].tolist():
            parts = torch.autograd.grad(row[act], parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            found[state, act] = torch.cat([part.flatten() for part in parts]).cpu()
    return logprobs.log_softmax(-1), found


def coordinates(found: Tensor) -> Tensor:
    """Vectors `[S·A, S·A]`, one for each score of `[S, A, P]`, with the scores' own inner products."""
    flat = found.flatten(0, 1).double()
    sizes, directions = torch.linalg.eigh(flat @ flat.T)
    return directions * sizes.clamp(min=0).sqrt()


@dataclass(frozen=True)
class Accuracy:
    """How far an estimator is from the truth g; lengths are shares of |g|. m: the estimates' mean.

    A bias comes with the sigmas at which it is told from none by this many estimates. What is left of it when the estimates are
    divided by `scale` is a bias of the direction, which no learning rate mends.
    """

    scale: float  # ⟨m, g⟩ / |g|²
    bias: float  # |m − g|
    bias_sigmas: float
    turned: float  # |m / scale − g|
    turned_sigmas: float
    cosine: float  # of m and g
    deviation: float  # root of the summed variances of one estimate
    one_cosine: float  # of one estimate and g, on average
    snr: float  # |m|² / summed variances

    @property
    def angle(self) -> float:
        """Of m to g, degrees."""
        return math.degrees(math.atan2(self.turned * abs(self.scale), self.scale))

    def verdict(self, sigmas: float) -> str:
        """`none`, `scale` (a positive rescaling) or `direction`: what bias can be told from none."""
        if self.turned_sigmas >= sigmas or self.scale <= 0:
            return "direction"
        return "scale" if self.bias_sigmas >= sigmas else "none"


def accuracy(estimates: Tensor, truth: Tensor) -> Accuracy:
    """Bias and variance of estimates `[M, D]` of a vector `[D]`. Squared lengths are freed of what the noise of M estimates adds to them."""
    length = float(truth.norm())
    estimates, truth = estimates / length, truth / length
    mean, along = estimates.mean(0), estimates @ truth
    scale = float(along.mean())
    bias, bias_sigmas = _distance(estimates - truth)
    turned, turned_sigmas = _distance(estimates - along[:, None] * truth)
    variance = float(estimates.var(0).sum())
    signal = max(float(mean @ mean) - variance / len(estimates), 1e-300)
    cosine = max(-1.0, min(1.0, scale / signal**0.5))
    one = float((along / estimates.norm(dim=1).clamp(min=1e-300)).mean())
    return Accuracy(scale, bias, bias_sigmas, turned / abs(scale), turned_sigmas, cosine, variance**0.5, one, signal / variance)


def _distance(errors: Tensor) -> tuple[float, float]:
    """Length of the mean of errors `[M, D]`, freed of noise, and the sigmas at which it differs from 0.

    Were the mean 0, M times its squared length would be a sum of squared normals with the variances of one error, which is
    nearly a multiple of a χ² of the same mean and variance (Satterthwaite, 1946).
    """
    covariance = torch.cov(errors.T)
    trace, squares = float(covariance.trace()), float(covariance.square().sum())
    if trace < 1e-20:
        length = float(errors.mean(0).norm())
        return length, _MOST_SIGMAS if length > 1e-9 else 0.0
    found = float(errors.mean(0).square().sum())
    tail = stats.chi2.sf(len(errors) * found * trace / squares, trace**2 / squares)
    return max(0.0, found - trace / len(errors)) ** 0.5, min(float(stats.norm.isf(tail)), _MOST_SIGMAS)
