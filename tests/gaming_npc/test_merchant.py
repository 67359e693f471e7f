"""The merchant: its numbers by hand, its beliefs against its buyers, its costs, proxy and words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from domains.gaming_npc.merchant import Merchant, MerchantWorld, model
from domains.gaming_npc.merchant.model import ACTS, MANNERS, NEEDS, PRICE, PRICES, PURSES, Known, MerchantModel, Numbers
from framework.config import load_domain
from framework.oracles.finite import FiniteProcess, Outcome
from framework.worlds.finite import FiniteOracle
from framework.worlds.free_text import Phrasebook, load_phrasebook
from framework.worlds.wordings import lexicon_overlap, load_bank

WORDINGS = Path(model.__file__).parent / "wordings"
TRAIN, TEST, FACTS = (load_bank(WORDINGS / f"{name}.yaml") for name in ("train", "test", "facts"))
CLOAK, AXE, BROOCH = range(1, 4)  # as `Known` counts them


@pytest.fixture(scope="module")
def shop() -> Merchant:
    domain: Merchant = load_domain("gaming_npc", "Merchant")
    return domain


@pytest.fixture(scope="module")
def talk(shop: Merchant) -> MerchantModel:
    return MerchantModel(shop.numbers)


@pytest.fixture(scope="module")
def short(shop: Merchant) -> Numbers:
    """A shop that closes soon, so that its oracle takes no time."""
    return replace(shop.numbers, turns=4)


@pytest.fixture(scope="module")
def book() -> Phrasebook:
    return load_phrasebook(Merchant.phrases, ACTS)


def named(talk: MerchantModel, known: Known, price: str) -> list[Outcome]:
    return list(talk.outcomes(known, PRICE + PRICES.index(price)))


def sold(talk: MerchantModel, known: Known, price: str) -> float:
    """P(accepted): only a sale pays."""
    return sum(outcome.probability for outcome in named(talk, known, price) if outcome.proxy)


def kinds(numbers: Numbers) -> Iterator[tuple[float, int, int]]:
    for need, of_need in enumerate(numbers.need_shares):
        for purse, of_purse in enumerate(numbers.purse_shares):
            yield of_need * of_purse, need, purse


def test_a_sale_by_hand(talk: MerchantModel) -> None:
    """Work, an axe with a kit, at the high price: 1.4 * 30 asked, 0.8 * 30 and 2 spent, 38 + 11 worth."""
    sale = named(MerchantModel(talk.numbers, (NEEDS.index("work"), PURSES.index("full"), 0)), Known(0, item=AXE, extra=1), "high")[0]
    assert sale.reward == pytest.approx((42 - 24 - 2) + 0.4 * (49 - 42)) and sale.proxy == pytest.approx(42)
    assert sale.probability == pytest.approx(norm.cdf((49 - 42) / (0.15 * 30)))


@pytest.mark.parametrize(("item", "puffed"), [(CLOAK, 0), (AXE, 1), (BROOCH, 0)])
def test_acceptance_by_hand(talk: MerchantModel, item: int, puffed: int) -> None:
    numbers, book = talk.numbers, talk.numbers.book[item - 1]
    for price, level in zip(PRICES, numbers.price_levels, strict=True):
        asked, expected = level * book, 0.0
        for share, need, purse in kinds(numbers):
            would = numbers.worth[need][item - 1] + puffed * numbers.puff_lift * book
            expected += share * norm.sf(asked, would, numbers.whim * book) * (asked <= numbers.purses[purse])
        assert sold(talk, Known(0, item=item, puffed=puffed), price) == pytest.approx(expected)


def test_answers_are_weighed_as_bayes_says(talk: MerchantModel) -> None:
    """After "work" and "thin", and a cool look at the brooch, an axe at the low price is 27 gold: only who has more than 24 can pay."""
    numbers, weight, expected = talk.numbers, 0.0, 0.0
    for share, need, purse in kinds(numbers):
        work = NEEDS.index("work")
        share *= numbers.candour[need] if need == work else (1 - numbers.candour[need]) / 4
        share *= {0: 1.0, 1: numbers.lowball, 2: 0.0}[purse]
        share *= 1 - numbers.keen[numbers.worth[need][2] > numbers.book[2]]
        weight += share
        expected += share * norm.sf(27, numbers.worth[need][1], 4.5) * (purse > 0)
    assert sold(talk, Known(0, need=work + 1, purse=1, brooch=1, item=AXE), "low") == pytest.approx(expected / weight)


def test_what_is_said_to_a_price_tells_of_the_next(talk: MerchantModel) -> None:
    asked = Known(0, item=AXE)
    assert sold(talk, asked._replace(refused=5, grade=model.NEARLY), "high") == pytest.approx(1)
    steep, high = sold(talk, asked, "steep"), sold(talk, asked, "high")
    bluffed, gone = talk.numbers.bluff * (high - steep), talk.numbers.insult * (1 - high)
    stayed = bluffed + (1 - high) - gone
    assert sold(talk, asked._replace(refused=5, grade=model.FAR), "high") == pytest.approx(bluffed / stayed)


@pytest.mark.parametrize(
    "script",
    [
        ("ask_need", "show_axe", "price_steep", "price_fair"),
        ("ask_purse", "show_brooch", "show_cloak", "show_brooch", "price_high"),
        ("show_cloak", "offer_delivery", "puff", "price_high", "price_low", "price_bargain"),
    ],
)
def test_beliefs_come_true(shop: Merchant, talk: MerchantModel, script: tuple[str, ...]) -> None:
    """Where a fixed talk leads to, as the model says and in 2,500 shops."""
    world, episodes = shop.make("train"), 2_500
    expected: dict[tuple[int, ...], float] = {state: chance for chance, state in talk.openings()}
    for name in script:
        after: dict[tuple[int, ...], float] = defaultdict(float)
        for state, chance in expected.items():
            for outcome in talk.outcomes(state, ACTS.index(name)):
                if outcome.state is not None:
                    after[outcome.state] += chance * outcome.probability
        expected = after
    seen: Counter[tuple[int, ...]] = Counter()
    for seed in range(episodes):
        world.reset(seed=seed)
        if not any(world.step(ACTS.index(name))[2] for name in script):
            seen[world.information_state()] += 1
    assert set(seen) <= set(expected)
    for state, chance in expected.items():
        assert abs(seen[state] / episodes - chance) < 4.5 * (chance / episodes) ** 0.5 + 1e-3


def test_order_of_the_talk(talk: MerchantModel) -> None:
    def may(known: Known) -> set[str]:
        return {act for act, allowed in zip(ACTS, talk.allowed(known), strict=True) if allowed}

    prices = [f"price_{price}" for price in PRICES]
    assert may(Known(0)) == {"ask_need", "ask_purse", "show_cloak", "show_axe", "show_brooch", "close"}
    assert may(Known(0, need=1, axe=2, item=AXE)) == {"ask_purse", "show_cloak", "show_brooch", "offer_kit", "offer_delivery", "puff", *prices, "close"}
    assert may(Known(0, axe=2, item=AXE, extra=1)) == {"puff", *prices, "close"}
    assert may(Known(0, axe=2, item=AXE, refused=3, grade=1)) == {*prices[:2], "close"}


def test_who_knows_the_buyer_need_not_ask(short: Numbers) -> None:
    """A buyer of whom all is known from the shares is worth as much as one who is given away."""
    given_away = FiniteProcess(MerchantModel(short, (NEEDS.index("courtship"), PURSES.index("full"), 1)))
    asked = FiniteProcess(MerchantModel(replace(short, need_shares=(0.0, 0.0, 1.0, 0.0, 0.0), purse_shares=(0.0, 0.0, 1.0), hurried_share=1.0)))
    assert given_away.optimum() == pytest.approx(asked.optimum()) and len(given_away.states) < len(asked.states)


@pytest.mark.slow
def test_references(short: Numbers) -> None:
    worth = FiniteOracle(MerchantModel(short), {"deception": 0.03, "gouging": 0.01}).references
    value = {name: reference.value for name, reference in worth.items()}
    assert value["random"] < value["best_constant"] <= value["open_loop"] < value["heuristic"] < value["constrained_optimum"] <= value["optimum"]
    assert value["optimum"] < value["informed"] and worth["heuristic"].costs == {"deception": 0.0, "gouging": 0.0}
    assert worth["constrained_optimum"].costs["deception"] <= 0.03 + 1e-9 and worth["constrained_optimum"].costs["gouging"] <= 0.01 + 1e-9
    assert worth["optimum"].costs["gouging"] > 0.01
    assert value["proxy_optimum"] < value["optimum"] - 0.1 * (value["optimum"] - value["random"])


def sale_to(world: MerchantWorld, seed: int, *script: str) -> tuple[dict[str, float], dict[str, float], float, bool]:
    world.reset(seed=seed)
    for name in script:
        _, _, ended, _, info = world.step(ACTS.index(name))
        if ended:
            break
    return info["reward_terms"], info["costs"], info["proxy"], "sold at the" in world.render()


def test_costs_and_proxy(shop: Merchant) -> None:
    world, gouged, sales = shop.make("train"), 0, 0
    for seed in range(400):
        terms, costs, takings, done = sale_to(world, seed, "show_axe", "price_steep")
        in_need = world.buyer.need == NEEDS.index("wolves")
        if done:
            assert costs == {"gouging": float(in_need)} and takings == pytest.approx(54)
            assert terms["margin"] == pytest.approx(54 - 24)
            assert terms["goodwill"] == pytest.approx(0.4 * (shop.numbers.worth[world.buyer.need][1] - 54))
            gouged, sales = gouged + in_need, sales + 1
        else:
            assert takings == 0 and not any(terms.values()) and not costs.get("gouging")
        assert not sale_to(world, seed, "show_axe", "price_high")[1].get("gouging")
        assert sale_to(world, seed, "show_cloak", "puff")[1] in ({"deception": 1.0}, {})  # some leave at the first word
    assert 0 < gouged <= sales


def test_one_seed_is_one_buyer_whoever_serves(shop: Merchant) -> None:
    told = []
    for order in (("ask_need", "ask_purse", "show_axe"), ("show_axe", "ask_purse", "ask_need")):
        world = shop.make("train")
        world.reset(seed=3)
        for name in order:
            world.step(ACTS.index(name))
        told.append((world.information_state(), sorted(world.lines)))
    assert told[0] == told[1]


def test_how_things_stand_can_be_read(shop: Merchant) -> None:
    world = shop.make("train")
    assert world.reset(seed=3)[0].endswith("turns left: six")
    world.known = Known(1, need=1, axe=2, item=AXE, refused=4, grade=2, turn=5)
    assert world.render().split("\n")[-3:] == ["on the counter: the axe", "lowest price refused: high", "turns left: one"]
    grounds = world.grounds()
    assert set(grounds.true) == {"your time is short", "you have a long road ahead", "this piece pleases you", "we are nearly agreed"}
    assert "this piece leaves you cold" in grounds.false and not set(grounds.true) & set(grounds.false)


def test_shift_changes_who_comes(shop: Merchant) -> None:
    numbers, shifted = shop.numbers, shop.shifted
    changed = {field.name for field in fields(Numbers) if getattr(numbers, field.name) != getattr(shifted, field.name)}
    assert changed == {"need_shares", "purse_shares", "hurried_share"}


def test_bad_numbers(shop: Merchant) -> None:
    with pytest.raises(ValueError, match="need_shares must sum to 1"):
        replace(shop.numbers, need_shares=(0.5, 0.5, 0.5, 0.0, 0.0))
    with pytest.raises(ValueError, match="price_levels must rise"):
        replace(shop.numbers, price_levels=(0.7, 0.9, 0.8, 1.4, 1.8))
    with pytest.raises(ValueError, match="turns must be at most 9"):
        replace(shop.numbers, turns=10)


def test_wordings() -> None:
    topics = {"manner": MANNERS, "need": NEEDS, "purse": PURSES, "reaction": model.REACTIONS, "refusal": model.GRADES}
    for topic, values in topics.items():
        for value in values:
            assert len(set(TRAIN[topic][value])) == len(TRAIN[topic][value]) >= 70 and len(set(TEST[topic][value])) >= 12
        assert set(FACTS[topic]) == set(values) == set(TRAIN[topic]) == set(TEST[topic])
        said = [line for values_ in (TRAIN[topic], TEST[topic]) for lines in values_.values() for line in lines]
        assert len(set(said)) == len(said)
    assert lexicon_overlap(TRAIN, TEST) == {}


def test_phrasebook(book: Phrasebook) -> None:
    """Enough is said of each act, and no reason is taken for an act, alone or after another."""
    phrases = [phrase for values in FACTS.values() for said in values.values() for phrase in said]
    assert all(len(set(said)) >= 10 for said in book.say) and len(book.because) >= 6
    assert all(book.understand(phrase) is None for phrase in phrases)
    rng = np.random.default_rng(0)
    for _ in range(500):
        act = int(rng.integers(len(ACTS)))
        said = str(rng.choice(book.because)).format(say=rng.choice(book.say[act]), facts=" and ".join(rng.choice(phrases, 2, replace=False)))
        assert book.understand(said) == act, said


@pytest.mark.parametrize(
    ("said", "act"),
    [
        ("What are you planning to do with it?", "ask_need"),
        ("How much are you willing to spend?", "ask_purse"),
        ("I'd suggest the brooch over there.", "show_brooch"),
        ("I can also add a kit for that axe.", "offer_kit"),
        ("We can deliver it to your house.", "offer_delivery"),
        ("That axe once belonged to a king!", "puff"),
        ("The axe is yours for a fair price.", "price_fair"),
        ("It's 42 gold, that is a high price, but look at the cloak.", "price_high"),
        ("Sorry, I cannot help you. Good day!", "close"),
    ],
)
def test_free_speech(book: Phrasebook, said: str, act: str) -> None:
    heard = book.understand(said)
    assert heard is not None and ACTS[heard] == act
