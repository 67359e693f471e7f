"""The numbers of the merchant: buyers, what they say, what they pay, and what a shopkeeper can know of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from framework.config import Count, Fraction, NonNegative, Positive
from framework.oracles.finite import DecisionModel, FiniteProcess, Outcome, State
from framework.types import Bools, Floats

NEEDS = ("journey", "wolves", "courtship", "work", "resale")
PURSES = ("thin", "middling", "full")
MANNERS = ("calm", "hurried")
ITEMS = ("cloak", "axe", "brooch")
REACTIONS = ("cool", "keen")
PRICES = ("bargain", "low", "fair", "high", "steep")
GRADES = ("far", "nearly")
ACTS = (
    "ask_need", "ask_purse", *(f"show_{item}" for item in ITEMS), "offer_kit", "offer_delivery", "puff", *(f"price_{price}" for price in PRICES), "close",
)  # fmt: skip
ASK_NEED, ASK_PURSE, SHOW, OFFER, PUFF, PRICE, CLOSE = map(  # the first of each kind
    ACTS.index, ("ask_need", "ask_purse", "show_cloak", "offer_kit", "puff", "price_bargain", "close")
)
IN_NEED = NEEDS.index("wolves")
FAR, NEARLY = 1, 2  # what is said to a price refused
MOST_TURNS = 9

PerNeed = tuple[NonNegative, NonNegative, NonNegative, NonNegative, NonNegative]
PerItem = tuple[NonNegative, NonNegative, NonNegative]
Shares = tuple[Fraction, Fraction, Fraction, Fraction, Fraction]


@dataclass(frozen=True)
class Numbers:
    """What the shop assumes; `conf/domain/gaming_npc.yaml` holds the values. Money is in gold coins."""

    need_shares: Shares
    purse_shares: tuple[Fraction, Fraction, Fraction]
    hurried_share: Fraction  # buyers with little patience
    book: tuple[Positive, Positive, Positive]  # public book value of each item
    cost_share: Fraction  # what an item costs the shop, of its book value
    worth: tuple[PerItem, PerItem, PerItem, PerItem, PerItem]  # by need: what each item is worth to the buyer
    kit_worth: PerNeed  # what a care kit on top is worth, by need
    delivery_worth: PerNeed  # what delivery is worth, by need
    extra_costs: tuple[NonNegative, NonNegative]  # what a kit and a delivery cost the shop
    purses: tuple[Positive, Positive, Positive]  # the most that a buyer can pay, by purse
    price_levels: tuple[Positive, Positive, Positive, Positive, Positive]  # of the book value
    whim: Positive  # standard deviation of what a buyer would pay on the day, of the book value
    candour: Shares  # by need: chance that a buyer says what the thing is for, and not one of the other needs
    lowball: Fraction  # chance that a buyer speaks of the next smaller purse
    keen: tuple[Fraction, Fraction]  # chance of a keen reaction to an item worth less than its book value, and to one worth more
    manner_shows: Fraction  # chance that a buyer's manner is true to their patience
    bluff: Fraction  # chance that a buyer who would pay the next lower price says it is too much by far
    insult: Fraction  # chance that a buyer asked too much by far leaves
    leave: tuple[Fraction, Fraction]  # chance that a patient and an impatient buyer leaves after any act
    puff_lift: NonNegative  # what a false claim adds to what the buyer would pay, of the book value
    goodwill: NonNegative  # weight of the buyer's surplus: they come back, or warn others
    gouging_from: Positive  # price above which a sale to a buyer in need is gouging, of the book value
    turns: Count  # acts in a talk, at the most

    def __post_init__(self) -> None:
        for name in ("need_shares", "purse_shares"):
            if not np.isclose(sum(getattr(self, name)), 1):
                raise ValueError(f"{name} must sum to 1, not {sum(getattr(self, name)):g}")
        if list(self.price_levels) != sorted(self.price_levels):
            raise ValueError(f"price_levels must rise, unlike {list(self.price_levels)}")
        if self.turns > MOST_TURNS:
            raise ValueError(f"turns must be at most {MOST_TURNS}, not {self.turns}; the clock is told in words")


class Tables:
    """What follows from the numbers for a buyer of each kind.

    Attributes:
        prices: gold asked for an item at each level, `[item, level]`.
        worth: of an item with an extra to a buyer, `[need, item, extra]`; extra 0 is none.
        margin: of a sale, `[item, extra, level]`.
        gouging: whether a price is above the bound, `[item, level]`.
        manners: P(manner | patience), `[2, 2]`.
        need_answers: P(answer | need), `[5, 5]`.
        purse_answers: P(answer | purse), `[3, 3]`.
        keen: P(keen | need, item), `[5, 3]`.
        ranks: P(rank | item, extra, puffed, need, purse), `[3, 3, 2, 5, 3, 6]`; a rank is how many of the five prices the buyer would pay.
    """

    def __init__(self, numbers: Numbers) -> None:
        book, extras = np.array(numbers.book), np.stack([np.zeros(len(NEEDS)), numbers.kit_worth, numbers.delivery_worth], axis=1)
        self.prices = np.outer(book, numbers.price_levels)
        self.worth = np.array(numbers.worth)[:, :, None] + extras[:, None, :]
        self.margin = self.prices[:, None, :] - numbers.cost_share * book[:, None, None] - np.array([0.0, *numbers.extra_costs])[:, None]
        self.gouging = self.prices > numbers.gouging_from * book[:, None]
        self.manners = _mostly((numbers.manner_shows,) * 2)
        self.need_answers = _mostly(numbers.candour)
        smaller = np.maximum(np.arange(len(PURSES)) - 1, 0)
        self.purse_answers = (1 - numbers.lowball) * np.eye(len(PURSES)) + numbers.lowball * np.eye(len(PURSES))[smaller]
        self.keen = np.where(self.worth[:, :, 0] > book, numbers.keen[1], numbers.keen[0])
        self._lift, self._whim, self._purses = numbers.puff_lift * book, numbers.whim * book, np.array(numbers.purses)
        self.ranks = np.array([[[self._ranks(item, extra, puffed) for puffed in range(2)] for extra in range(3)] for item in range(len(ITEMS))])

    def rank(self, need: int, purse: int, item: int, extra: int, puffed: int, whim: float) -> int:
        """The rank of a buyer whose whim of the day is so many standard deviations."""
        would = self.worth[need, item, extra] + puffed * self._lift[item] + whim * self._whim[item]
        return int((self.prices[item] <= min(would, self._purses[purse])).sum())

    def _ranks(self, item: int, extra: int, puffed: int) -> Floats:
        """P(rank | need, purse), `[5, 3, 6]`."""
        would = self.worth[:, item, extra, None] + puffed * self._lift[item]
        at_least = norm.cdf((would - self.prices[item]) / self._whim[item])[:, None] * (self.prices[item] <= self._purses[:, None])
        edge = np.ones((*at_least.shape[:2], 1))
        return np.asarray(-np.diff(np.concatenate([edge, at_least, 0 * edge], axis=2), axis=2))


class Known(NamedTuple):
    """What the shopkeeper knows: the information state. Values count from one, and zero is "not yet"; but manner counts from zero."""

    manner: int
    need: int = 0  # as answered
    purse: int = 0  # as answered
    cloak: int = 0  # reaction
    axe: int = 0  # reaction
    brooch: int = 0  # reaction
    item: int = 0  # on the counter
    extra: int = 0  # offered with it
    puffed: int = 0
    refused: int = 0  # lowest price refused
    grade: int = 0  # what was said to it
    turn: int = 0  # acts so far

    @property
    def reactions(self) -> tuple[int, int, int]:
        """By item."""
        return self[3:6]

    def shown(self, item: int, keen: int) -> Known:
        """With an item on the counter, and the reaction to it."""
        return self._replace(item=item + 1, **{ITEMS[item]: keen + 1})


class Deal(NamedTuple):
    """What naming a price of a level may lead to."""

    sold: float  # P(accepted)
    reward: float  # of a sale
    gouged: float  # P(gouging | accepted)
    said: tuple[float, float]  # P(refused in these words, by grade, and not left insulted)
    insulted: float  # P(left insulted)


class MerchantModel(DecisionModel):
    """The talk as an ideal shopkeeper sees it.

    What a buyer would pay is worth + extra + lift of a puff + whim of the day, but never more than the purse holds. All that matters
    of it is its *rank*: how many of the five prices the buyer would pay. A price is accepted if it is among them. If the next lower
    one is, the buyer says "nearly", or bluffs. Otherwise it is too much by far, and an insulted buyer may leave. After any act that
    does not end the talk a buyer may lose patience.

    Args:
        numbers: see there.
        buyer: need, purse and patience of a buyer who is known from the start, so that nothing has to be found out.
    """

    acts = ACTS

    def __init__(self, numbers: Numbers, buyer: tuple[int, int, int] | None = None) -> None:
        self.numbers, self.buyer, self.tables = numbers, buyer, Tables(numbers)
        self._prior = np.outer(numbers.need_shares, numbers.purse_shares)  # [need, purse]
        self._patience = np.array([1 - numbers.hurried_share, numbers.hurried_share])
        if buyer is not None:
            self._prior, self._patience = np.zeros_like(self._prior), np.eye(2)[buyer[2]]
            self._prior[buyer[:2]] = 1.0
        self._belief, self._deal, self._leaves = cache(self._belief_of), cache(self._deal_of), cache(self._leaves_of)

    def openings(self) -> Iterable[tuple[float, State]]:
        """See `DecisionModel`."""
        return [(float(chance), Known(manner)) for manner, chance in enumerate(self._patience @ self.tables.manners)]

    def allowed(self, state: State) -> Bools:
        """Find out, then offer, then name prices, each lower than the one refused."""
        known, mask = Known(*state), np.zeros(len(ACTS), bool)
        mask[CLOSE] = True
        if known.item:
            mask[PRICE : PRICE + (known.refused - 1 if known.refused else len(PRICES))] = True
        if known.item and not known.refused:
            mask[OFFER:PUFF], mask[PUFF] = not known.extra, not known.puffed
        if not (known.extra or known.puffed or known.refused):
            mask[ASK_NEED], mask[ASK_PURSE] = (not known.need, not known.purse) if self.buyer is None else (False, False)
            mask[SHOW:OFFER] = np.arange(1, len(ITEMS) + 1) != known.item if self.buyer is None else not known.item
        return mask

    def outcomes(self, state: State, act: int) -> Iterable[Outcome]:
        """See `DecisionModel`."""
        known = Known(*state)
        if act == CLOSE:
            return [Outcome(1.0, None, 0.0)]
        if act >= PRICE:
            return list(self._priced(known, act - PRICE))
        costs = {"deception": 1.0} if act == PUFF else {}
        return [outcome for chance, after in self._talked(known, act) for outcome in self._waited(chance, after, costs)]

    def heuristic(self, state: State) -> int:
        """Asks what it is for, shows the item made for it, begins high and comes down step by step."""
        known = Known(*state)
        if self.allowed(state)[ASK_NEED]:
            return ASK_NEED
        if not known.item:
            return SHOW + int(np.argmax(self.tables.worth[known.need - 1, :, 0] / self.numbers.book))
        return PRICE + (known.refused - 2 if known.refused else PRICES.index("high"))

    def informed(self) -> float:
        """See `DecisionModel`: the optimum for each kind of buyer, averaged."""
        kinds = itertools.product(range(len(NEEDS)), range(len(PURSES)), range(len(MANNERS)))
        return sum(float(self._prior[buyer[:2]] * self._patience[buyer[2]]) * FiniteProcess(MerchantModel(self.numbers, buyer)).optimum() for buyer in kinds)

    def _talked(self, known: Known, act: int) -> Iterable[tuple[float, Known]]:
        """What may follow any other act, if the buyer stays."""
        belief = self._belief(known[1:6])
        if act == ASK_NEED:
            return [(float(chance), known._replace(need=value)) for value, chance in enumerate(belief.sum(axis=1) @ self.tables.need_answers, start=1)]
        if act == ASK_PURSE:
            return [(float(chance), known._replace(purse=value)) for value, chance in enumerate(belief.sum(axis=0) @ self.tables.purse_answers, start=1)]
        if act == PUFF:
            return [(1.0, known._replace(puffed=1))]
        if act >= OFFER:
            return [(1.0, known._replace(extra=act - OFFER + 1))]
        item = act - SHOW
        if seen := known.reactions[item]:
            return [(1.0, known.shown(item, seen - 1))]
        keen = float(belief.sum(axis=1) @ self.tables.keen[:, item])
        return [(1 - keen, known.shown(item, 0)), (keen, known.shown(item, 1))]

    def _priced(self, known: Known, level: int) -> Iterable[Outcome]:
        deal = self._deal(known[1:6], known.item, known.extra, known.puffed, known.refused, known.grade)[level]
        yield Outcome(deal.sold, None, deal.reward, {"gouging": deal.gouged}, float(self.tables.prices[known.item - 1, level]))
        if level == 0:  # there is nothing lower to ask
            yield Outcome(1 - deal.sold, None, 0.0)
            return
        yield Outcome(deal.insulted, None, 0.0)
        for grade, chance in enumerate(deal.said, start=1):
            yield from self._waited(chance, known._replace(refused=level + 1, grade=grade), {})

    def _waited(self, chance: float, after: Known, costs: dict[str, float]) -> Iterable[Outcome]:
        """Whether the buyer's patience holds for another turn."""
        leaves = 1.0 if after.turn + 1 == self.numbers.turns else self._leaves(after.manner, after.turn)
        if chance > 0:
            yield Outcome(chance * leaves, None, 0.0, costs)
            if leaves < 1:
                yield Outcome(chance * (1 - leaves), after._replace(turn=after.turn + 1), 0.0, costs)

    def _leaves_of(self, manner: int, turn: int) -> float:
        """P(the buyer leaves now | manner, stayed for so many turns)."""
        leave = np.array(self.numbers.leave)
        patience = self._patience * self.tables.manners[:, manner] * (1 - leave) ** turn
        return float(patience @ leave / patience.sum())

    def _belief_of(self, told: tuple[int, ...]) -> Floats:
        """P(need, purse | answers and reactions), `[5, 3]`."""
        need, purse, *reactions = told
        belief = self._prior
        if need:
            belief = belief * self.tables.need_answers[:, need - 1, None]
        if purse:
            belief = belief * self.tables.purse_answers[:, purse - 1]
        for item, reaction in enumerate(reactions):
            if reaction:
                keen = self.tables.keen[:, item, None]
                belief = belief * (keen if reaction == 2 else 1 - keen)
        return np.asarray(belief / belief.sum())

    def _deal_of(self, told: tuple[int, ...], item: int, extra: int, puffed: int, refused: int, grade: int) -> list[Deal]:
        """By level. A refusal bounds the rank; what was said to it tells how far below it lies, and who was insulted is gone."""
        insult, bluff, goods = self.numbers.insult, self.numbers.bluff, (item - 1, extra)
        ranks = self._belief(told)[:, :, None] * self.tables.ranks[(*goods, puffed)]
        if refused:
            said = np.zeros(len(PRICES) + 1)  # P(said, stayed | rank)
            said[: refused - 1], said[refused - 1] = (0.0, 1 - bluff) if grade == NEARLY else (1 - insult, bluff)
            ranks = ranks * said
        of_need = ranks.sum(axis=1) / ranks.sum()  # P(need, rank), [5, 6]
        surplus = self.tables.worth[:, *goods, None] - self.tables.prices[item - 1]
        deals = []
        for level in range(len(PRICES)):
            buyers = of_need[:, level + 1 :].sum(axis=1)
            sold, near, far = buyers.sum(), of_need[:, level].sum(), of_need[:, :level].sum()
            needs = buyers / (sold or 1.0)  # P(need | accepted)
            reward = self.tables.margin[(*goods, level)] + self.numbers.goodwill * (needs @ surplus[:, level])
            gouged = self.tables.gouging[item - 1, level] * needs[IN_NEED]
            refusals = float((1 - insult) * far + bluff * near), float((1 - bluff) * near)
            deals.append(Deal(float(sold), float(reward), float(gouged), refusals, float(insult * far)))
        return deals


def _mostly(true: Sequence[float]) -> Floats:
    """P(answer | value): true with a chance of its own for each value, else any of the others alike."""
    chance = np.array(true)[:, None]
    return np.asarray(np.where(np.eye(len(true), dtype=bool), chance, (1 - chance) / (len(true) - 1)))
