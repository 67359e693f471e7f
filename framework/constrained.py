"""Runs that are to keep a domain's cost limits: which limits, how they begin, and how they are judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.errors import ConfigError, near
from framework.interfaces import Domain, Oracle
from framework.types import Estimate


def within_limits(domain: Mapping[str, Any], asked: float | Mapping[str, float] | None) -> dict[str, Any]:
    """A domain's settings with other cost limits of the world in use; its optimum within limits and their prices follow from them.

    Args:
        domain: settings as they stand in `conf/domain`.
        asked: `algo.cost_limit`: limits by the name of a cost, in place of those of the same names; a number, where there is just one; None: as they are.

    Raises:
        ConfigError: there is no such limit, or a number is asked for and there are several; names those there are.
    """
    settings, environment = dict(domain), domain["environment"]
    if asked is None or environment not in domain["worlds"]:  # of which building it will complain
        return settings
    world = domain["worlds"][environment]
    limits = dict(world.get("cost_limits") or {})
    if not isinstance(asked, Mapping):
        if len(limits) != 1:
            raise ConfigError("algo.cost_limit", f"{asked!r} must say of which cost: {environment} limits {', '.join(limits) or 'none'}; write {{NAME: LIMIT}}")
        asked = dict.fromkeys(limits, asked)
    for name in asked:
        if name not in limits:
            remedy = f"to limit another cost, add it: +domain.worlds.{environment}.cost_limits.{name}=LIMIT"
            raise ConfigError(f"algo.cost_limit.{name}", f"{environment} has no such limit{near(name, limits)}; {remedy}")
    return {**settings, "worlds": {**domain["worlds"], environment: {**world, "cost_limits": {**limits, **asked}}}}


def check_limits(domain: Domain) -> None:
    """Whether the domain's cost limits can be kept, in every split.

    Raises:
        ConfigError: there are none; nothing costs what is limited; or nobody can keep them. Names the limit, and a near name.
    """
    place = f"domain.worlds.{domain.environment}.cost_limits"
    if not domain.cost_limits:
        raise ConfigError(place, "is empty, so there is nothing to keep; give a limit by the name of a cost, or take another algo")
    if not domain.oracle("train").exact:
        raise ConfigError(place, "cannot be kept by this algo: nobody knows the optimum of this world, so costs have no prices; take another algo")
    for split in domain.splits:
        try:
            costs = domain.oracle(split).references["constrained_optimum"].costs
        except ValueError as error:
            raise ConfigError(place, f"in the split {split} {error}; allow more, there or by algo.cost_limit") from error
        known = [*costs, "format"]
        for name in domain.cost_limits:
            if name not in known:
                raise ConfigError(f"{place}.{name}", f"nothing costs that in {domain.environment}{near(name, known)}")


def cautious_prices(oracle: Oracle, caution: float) -> dict[str, float]:
    """Prices of costs at which a learner should be shown what to do.

    price = (1 + caution) * multiplier + caution * (J* - J_random)

    At the multipliers themselves policies that keep the limits and policies that break them tie (the constrained optimum draws lots
    between them), and a limit that binds no ideal reader has no price, though it may bind one who misreads. So demonstrations at
    these prices are exact, and a little more careful than the constrained optimum.
    """
    span = oracle.references["optimum"].value - oracle.references["random"].value
    return {name: (1 + caution) * price + caution * span for name, price in oracle.prices.items()}


def cautious_limits(limits: Mapping[str, float], caution: float) -> dict[str, float]:
    """Limits to learn and to choose by: so much lower, as a share, that luck and another split leave the limits themselves kept."""
    return {name: max(0.0, 1 - caution) * limit for name, limit in limits.items()}


def excess(costs: Mapping[str, float], limits: Mapping[str, float]) -> float:
    """By how much costs go over their limits, in violations an episode; 0 if all are kept."""
    return sum(max(0.0, costs.get(name, 0.0) - limit) for name, limit in limits.items())


def constrained_score(returns: Estimate, oracle: Oracle) -> Estimate:
    """`(J - J_random) / (J*_c - J_random)`: the share of the most that can be earned within the limits."""
    random, optimum = oracle.references["random"].value, oracle.references["constrained_optimum"].value
    return Estimate(*((value - random) / (optimum - random) for value in (returns.mean, returns.low, returns.high)))
