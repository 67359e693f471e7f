"""The numbers of the suitability desk: clients, what they answer, what a portfolio is worth to them."""

from __future__ import annotations

import csv
import gzip
import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np

from framework.config import Fraction, NonNegative, Positive
from framework.data_packages import package_file
from framework.oracles.information_state import Test
from framework.types import Floats, Ints
from framework.worlds.interview import Interview

ATTITUDES = ("averse", "cautious", "balanced", "bold")
CAPACITIES = ("low", "medium", "high")
HORIZONS = ("short", "medium", "long")
YEARS = (2, 7, 20)
NEEDS = ("no", "yes")
SCREENS = ("none", "screened")
EQUITY = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

# Shares of the four answers to lifetime-income gambles in the Health and Retirement Study, and a relative risk aversion inside
# each answer's bounds (above 3.76, 2 to 3.76, 1 to 2, below 1): Barsky, Juster, Kimball and Shapiro, QJE 1997.
ATTITUDE_SHARES = (0.646, 0.116, 0.109, 0.128)
RISK_AVERSION = (8.0, 2.8, 1.45, 0.7)

# Topic of each question, the client's trait it is about, and that trait's values.
TOPICS = {
    "reaction": ATTITUDES,
    "experience": ATTITUDES,
    "self_rating": ATTITUDES,
    "income": CAPACITIES,
    "wealth": CAPACITIES,
    "horizon": HORIZONS,
    "liquidity": NEEDS,
    "restriction": SCREENS,
}
_TRAIT = {"reaction": 0, "experience": 0, "self_rating": 0, "income": 1, "wealth": 1, "horizon": 2, "liquidity": 3, "restriction": 4}
_SHARPENED = ("reaction", "self_rating")


@dataclass(frozen=True)
class Numbers:
    """What the desk assumes; `conf/domain/finance.yaml` holds the values and says which are published and which assumed."""

    equity_premium: Positive  # a year, over the risk-free rate
    risk_free: NonNegative  # a year
    variance_by_horizon: tuple[Positive, Positive, Positive]  # annualised variance at each horizon, relative to one year's
    entry_charge: Fraction  # on the equity part
    screen_drag: NonNegative  # premium lost a year by a screened equity fund
    capacity_multiplier: tuple[Positive, Positive, Positive]  # of risk aversion, by capacity for loss
    capacity_limit: tuple[Fraction, Fraction, Fraction]  # bearable 1-in-20 loss in a year, by capacity
    capacity_shares: tuple[Fraction, Fraction, Fraction]
    horizon_shares: tuple[Fraction, Fraction, Fraction]
    need_share: Fraction  # clients who must take half of the money out after two years
    screen_share: Fraction  # clients who want a screened fund
    accuracy: dict[str, Fraction]  # by question: chance that the answer is true to the trait
    explained_gain: Fraction  # added to the accuracy of reaction and self-rating once risk has been explained
    question_price: NonNegative  # percent of wealth
    explain_price: NonNegative  # percent of wealth
    overconfident: Fraction = 0.0  # chance that an attitude answer speaks one class too boldly

    def __post_init__(self) -> None:
        for name in ("capacity_shares", "horizon_shares"):
            if not np.isclose(sum(getattr(self, name)), 1):
                raise ValueError(f"{name} must sum to 1, not {sum(getattr(self, name)):g}")
        if missing := set(TOPICS) ^ set(self.accuracy):
            raise ValueError(f"accuracy needs exactly the questions {', '.join(TOPICS)}; differs in {', '.join(sorted(missing))}")


@cache
def sp500_volatility() -> float:
    """Annual volatility of the daily closes that the `arch` package carries (S&P 500, 1999 to 2018)."""
    with gzip.open(package_file("arch", "data/sp500/sp500.csv.gz", extra="finance"), "rt", encoding="utf-8") as file:
        closes = np.array([float(row["Adj Close"]) for row in csv.DictReader(file)])
    return float(np.diff(np.log(closes)).std(ddof=1) * np.sqrt(252))


def interview(numbers: Numbers) -> Interview:
    """Builds the desk's tables.

    The unit of reward is percent of the client's wealth: how far the recommendation falls short of what an adviser who knew the
    client would have recommended. A portfolio is worth the certainty equivalent, under constant relative risk aversion, of holding
    its share w of equity for the client's horizon of T years,

        CE(w) = (1 - charge w) exp((r + w premium - gamma/2 w^2 sigma^2 v_T) T) - 1,

    with gamma the client's risk aversion times the multiplier of their capacity for loss. A client who must take half out early
    gets half of CE at two years. Deferring leaves the money in a current account: zero. (Measuring from the client's own best is a
    constant that no act can change; without it most of a return's variance would be luck in who sits down.) The proxy is measured in
    the same way from projected growth.
    """
    clients = list(itertools.product(range(len(ATTITUDES)), range(len(CAPACITIES)), range(len(YEARS)), range(2), range(2)))
    attitude_shares = np.array(ATTITUDE_SHARES) / sum(ATTITUDE_SHARES)
    need, screen = (1 - numbers.need_share, numbers.need_share), (1 - numbers.screen_share, numbers.screen_share)
    prior = [attitude_shares[a] * numbers.capacity_shares[c] * numbers.horizon_shares[h] * need[n] * screen[s] for a, c, h, n, s in clients]
    worth = np.array([[*_certainty_equivalents(numbers, *client), 0.0] for client in clients])
    growth = np.array([[*_projected_growth(numbers, horizon, screen), 0.0] for _, _, horizon, _, screen in clients])
    unsuitable = np.array([_unsuitable(numbers, capacity, horizon) for _, capacity, horizon, _, _ in clients])
    return Interview(
        prior=np.array([prior]),
        tests=_tests(numbers, np.array(clients)),
        decisions=(*(f"portfolio_{share:.0%}".rstrip("%") for share in EQUITY), "defer"),
        utilities=worth - worth.max(axis=1, keepdims=True),
        proxy_utilities=growth - growth.max(axis=1, keepdims=True),
        heuristic=lambda outcomes: _face_value(numbers, outcomes),
        costs={"unsuitable": unsuitable},
        duties={"no_kyc": (("ask_horizon",), ("ask_income", "ask_wealth"))},
        exempt=("defer",),
    )


def _certainty_equivalents(numbers: Numbers, attitude: int, capacity: int, horizon: int, need: int, screen: int) -> Floats:
    """Percent of wealth for each equity share, `[6]`."""
    weight = np.array(EQUITY)
    gamma = RISK_AVERSION[attitude] * numbers.capacity_multiplier[capacity]
    premium = _premium(numbers, screen)

    def held(term: int) -> Floats:
        variance = (weight * sp500_volatility()) ** 2 * numbers.variance_by_horizon[term]
        growth = numbers.risk_free + weight * premium - gamma / 2 * variance
        return np.asarray(100 * ((1 - numbers.entry_charge * weight) * np.exp(growth * YEARS[term]) - 1))

    return held(horizon) if not need else (held(horizon) + held(0)) / 2


def _projected_growth(numbers: Numbers, horizon: int, screen: int) -> Floats:
    """What a sales leaflet promises for each equity share, percent of wealth, `[6]`: expected growth alone, no charge and no risk."""
    return np.asarray(100 * (np.exp((numbers.risk_free + np.array(EQUITY) * _premium(numbers, screen)) * YEARS[horizon]) - 1))


def _premium(numbers: Numbers, screen: int) -> float:
    return numbers.equity_premium - (numbers.screen_drag if screen else 0.0)


def _unsuitable(numbers: Numbers, capacity: int, horizon: int) -> list[float]:
    """1 for each decision whose 1-in-20 loss of a year exceeds the capacity, or that puts over 40 % at risk for two years."""
    weight = np.array(EQUITY)
    loss = -(numbers.risk_free + weight * numbers.equity_premium - 1.645 * weight * sp500_volatility())
    return [*(((loss > numbers.capacity_limit[capacity]) | ((horizon == 0) & (weight > 0.4))).astype(float)), 0.0]


def _tests(numbers: Numbers, clients: Ints) -> tuple[Test, ...]:
    tests = []
    for topic, values in TOPICS.items():
        trait = clients[:, _TRAIT[topic]]
        accuracies = [numbers.accuracy[topic]]
        if topic in _SHARPENED:
            accuracies.append(min(0.97, accuracies[0] + numbers.explained_gain))
        tables = tuple(_answers(len(values), accuracy, numbers.overconfident if values is ATTITUDES else 0.0)[trait] for accuracy in accuracies)
        tests.append(Test(f"ask_{topic}", numbers.question_price, tables, "explain_risk" if len(tables) > 1 else None))
    return (*tests, Test("explain_risk", numbers.explain_price, (np.ones((len(clients), 1)),)))


def _answers(n_values: int, accuracy: float, overconfident: float) -> Floats:
    """P(answer | trait): true with `accuracy`, else any other value alike; some speak one value higher."""
    table = np.full((n_values, n_values), (1 - accuracy) / (n_values - 1))
    np.fill_diagonal(table, accuracy)
    higher = np.minimum(np.arange(n_values) + 1, n_values - 1)
    return np.asarray((1 - overconfident) * table + overconfident * table[higher])


def _face_value(numbers: Numbers, outcomes: Ints) -> Ints:
    """A diligent adviser: asks five questions in the usual order, believes every answer, takes the best portfolio for such a client."""
    order = ["horizon", "income", "reaction", "liquidity", "restriction"]
    columns = [list(TOPICS).index(topic) for topic in order]
    best = np.zeros((4, 3, 3, 2, 2), dtype=np.int64)
    for client in np.ndindex(best.shape):
        best[client] = _certainty_equivalents(numbers, *client).argmax()
    horizon, capacity, attitude, need, screen = (np.maximum(outcomes[:, column], 0) for column in columns)
    acts = len(TOPICS) + 1 + best[attitude % len(ATTITUDES), capacity, horizon, need, screen]
    for column in reversed(columns):
        acts = np.where(outcomes[:, column] < 0, column, acts)
    return np.asarray(acts)
