"""The most that can be earned within limits on expected costs.

Policies that draw lots between others span a polytope of (return, costs); its best point within the limits is a linear programme
over policies. They are too many to write down, but few matter: the programme is solved over those found so far, its dual prices say
what a unit of each cost is worth, the world is solved with costs charged at those prices, and the policy that comes out joins the
programme until none would improve it (Dantzig and Wolfe, 1960; for constrained decision processes, Altman, 1999).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.optimize import linprog

from framework.types import Floats, Reference

_MAX_POLICIES = 100
_TOLERANCE = 1e-7  # of the return's scale


def constrained_occupancy(
    best_response: Callable[[Mapping[str, float]], Floats], worth: Callable[[Floats], Reference], limits: Mapping[str, float]
) -> tuple[Floats, dict[str, float]]:
    """How often the constrained optimum takes each act in each state, and what it would give to be allowed one violation more, by cost.

    These prices are the programme's dual solution, the Lagrange multipliers of the limits: 0 where a limit does not bind. The optimum
    draws lots between policies that are all best where costs are charged at these prices, and of which single ones may break a limit.

    Args:
        best_response: occupancy of the policy that is best where each cost is charged at a given price.
        worth: return and costs of an occupancy.
        limits: by cost.

    Raises:
        ValueError: no policy keeps the limits; says which, and how near one can come.
    """
    occupancies = [best_response({})]
    points = [worth(occupancies[0])]
    if all(points[0].costs.get(name, 0.0) <= limit for name, limit in limits.items()):
        return occupancies[0], dict.fromkeys(limits, 0.0)
    bound = np.array(list(limits.values()))
    dear = 1e6 * max(1.0, abs(points[0].value))  # price of a limit that no mixture of the policies found keeps
    while len(points) < _MAX_POLICIES:
        costs = np.array([[point.costs.get(name, 0.0) for name in limits] for point in points])
        earned = np.array([point.value for point in points])
        # Maximise what the mixture earns; the last columns are breaches of the limits, at a price that nobody would pay.
        programme = linprog(
            np.concatenate([-earned, np.full(len(bound), dear)]),
            A_ub=np.hstack([costs.T, -np.eye(len(bound))]),
            b_ub=bound,
            A_eq=np.concatenate([np.ones(len(points)), np.zeros(len(bound))])[None],
            b_eq=[1.0],
        )
        weights, breach = programme.x[: len(points)], programme.x[len(points) :]
        prices = dict(zip(limits, np.maximum(-programme.ineqlin.marginals, 0.0).tolist(), strict=True))
        found = best_response(prices)
        new = worth(found)
        charged = new.value - sum(price * new.costs.get(name, 0.0) for name, price in prices.items())
        gain = charged + float(programme.eqlin.marginals[0])
        if gain <= _TOLERANCE * max(1.0, abs(points[0].value), float(breach.sum() > 0) * dear * 1e-6):
            if (breach > 1e-9).any():
                told = ", ".join(f"{name} (at least {limits[name] + over:.4g})" for name, over in zip(limits, breach, strict=True) if over > 1e-9)
                raise ValueError(f"no policy keeps the cost limits: {told}")
            return np.asarray(sum(weight * occupancy for weight, occupancy in zip(weights, occupancies, strict=True))), prices
        occupancies.append(found)
        points.append(new)
    raise ValueError(f"the constrained optimum was not found with {_MAX_POLICIES} policies")
