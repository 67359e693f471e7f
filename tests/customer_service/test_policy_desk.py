"""The policy desk: its policy engine, its database, its numbers, its text, and that the exploitable survey misleads."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from domains.customer_service.policy_desk import PolicyDesk, PolicyDeskWorld, model, pass_k, repeated_trials
from domains.customer_service.policy_desk.model import (
    ACTS,
    CALM,
    ENDINGS,
    FAILED,
    FLOWS,
    INTENTS,
    PASSED,
    RULES,
    SOURCES,
    UNCHECKED,
    PolicyDeskModel,
    Situation,
    due,
    policies,
    settle,
)
from domains.customer_service.policy_desk.shop import Shop, Ticket, stock
from framework.config import build_domain, load_domain
from framework.errors import ConfigError
from framework.worlds.environments import CHARSET
from framework.worlds.free_text import load_phrasebook
from framework.worlds.wordings import lexicon_overlap, load_bank

WORDINGS = Path(model.__file__).parent / "wordings"
TRAIN, TEST = load_bank(WORDINGS / "train.yaml"), load_bank(WORDINGS / "test.yaml")
NUMBER = {act: number for number, act in enumerate(ACTS)}


@pytest.fixture(scope="module")
def desk() -> PolicyDesk:
    return load_domain("customer_service", "PolicyDesk")


def a_ticket(**differing: object) -> Ticket:
    policy = {rule: values[0] for rule, values in RULES.items()}
    usual = {"intent": "missing", "price": 1, "mood": CALM, "identity": True, "honest": True, "age": "fresh", "member": False, "swap": False}
    return Ticket(**{**usual, **differing, "policy": policy | differing.get("policy", {})})  # type: ignore[arg-type]


def opened(world: PolicyDeskWorld, **wanted: object) -> str:
    """Resets until a ticket is as wanted."""
    for seed in range(5_000):
        text, _ = world.reset(seed=seed)
        if all(getattr(world.ticket, name) == value for name, value in wanted.items()):
            return text
    raise AssertionError(f"no ticket with {wanted}")


@pytest.mark.parametrize(
    ("act", "ticket"),
    [
        ("send_replacement", a_ticket()),
        ("refund_money", a_ticket(policy={"lost": "money"})),
        ("deny_with_rule", a_ticket(honest=False)),
        ("deny_with_rule", a_ticket(identity=False)),
        ("refund_money", a_ticket(intent="return")),
        ("store_credit", a_ticket(intent="return", policy={"method": "credit"})),
        ("send_replacement", a_ticket(intent="return", swap=True)),
        ("deny_with_rule", a_ticket(intent="return", age="recent")),
        ("refund_money", a_ticket(intent="return", age="recent", policy={"window": "month"})),
        ("deny_with_rule", a_ticket(intent="return", age="stale", policy={"window": "two_months"})),
        ("send_replacement", a_ticket(intent="damaged", age="stale")),
        ("deny_with_rule", a_ticket(intent="damaged", age="stale", policy={"exception": "window"})),
        ("refund_money", a_ticket(intent="damaged", policy={"remedy": "money"})),
        ("deny_with_rule", a_ticket(intent="damaged", honest=False)),
        ("waive_fee", a_ticket(intent="late")),
        ("deny_with_rule", a_ticket(intent="late", policy={"waiver": "members"})),
        ("waive_fee", a_ticket(intent="fee", member=True, policy={"waiver": "members"})),
        ("deny_with_rule", a_ticket(intent="fee", honest=False)),
        ("refund_money", a_ticket(intent="double")),
        ("escalate", a_ticket(intent="double", policy={"duplicate": "billing"})),
    ],
)
def test_policy_engine(act: str, ticket: Ticket) -> None:
    assert due(ticket.intent, ticket.policy, ticket.facts()) == act


def test_every_ending_leaves_a_database_of_its_own() -> None:
    shop = Shop()
    for ticket in (a_ticket(intent=intent, honest=honest) for intent, honest in itertools.product(INTENTS, (True, False))):
        rows = stock(ticket, ("A", "B"), ("lamp", "vase"), 40.0, 6.0)
        shop.load(rows)
        left = {ending: shop.after(ending) for ending in ENDINGS}
        assert shop.tables() == rows
        for one, other in itertools.combinations(ENDINGS, 2):
            assert left[one] != left[other]
        shop.end("store_credit")
        assert shop.tables() == left["store_credit"]
        assert [customer[3] for customer in shop.tables()["customers"]] == [40.0, 0.0]


def test_look_ups_find_the_facts() -> None:
    shop = Shop()
    for intent, record, true, untrue in [
        ("missing", "order", ("parcel", "lost"), ("parcel", "delivered")),
        ("late", "order", ("delivery", "late"), ("delivery", "on_time")),
        ("double", "payment", ("payment", "twice"), ("payment", "once")),
        ("fee", "payment", ("fee", "charged"), ("fee", "none")),
        ("return", "payment", ("payment", "once"), ("payment", "once")),
        ("return", "order", ("age", "fresh"), ("age", "fresh")),
    ]:
        for honest, found in ((True, true), (False, untrue)):
            shop.load(stock(a_ticket(intent=intent, honest=honest), ("A", "B"), ("lamp", "vase"), 40.0, 6.0))
            assert shop.read(record, intent) == found
    shop.load(stock(a_ticket(member=True), ("A", "B"), ("lamp", "vase"), 40.0, 6.0))
    assert shop.read("customer", "late") == ("tier", "member")


def test_settlement_by_hand(desk: PolicyDesk) -> None:
    n = desk.numbers
    assert n.resolved == 8.01  # published: Gartner 2019
    earned = {
        (ending, wanted, promised): sum(settle(n, ending, wanted, 1, promised).reward_terms.values())
        for ending, wanted, promised in itertools.product([*ENDINGS, "left"], ENDINGS, (False, True))
    }
    assert earned["refund_money", "refund_money", True] == pytest.approx(8.01 - 0.60)
    assert earned["refund_money", "deny_with_rule", False] == pytest.approx(-40 - 0.60)
    assert earned["refund_money", "waive_fee", False] == pytest.approx(-(40 - 6) - 0.60)
    assert earned["waive_fee", "refund_money", False] == pytest.approx(-5 - 0.60)
    assert earned["store_credit", "refund_money", False] == pytest.approx(-0.60)
    assert earned["left", "store_credit", False] == pytest.approx(-5 - 0.60)
    assert earned["left", "deny_with_rule", False] == pytest.approx(-0.60)
    assert earned["escalate", "refund_money", False] == pytest.approx(-1.50 - 0.60)
    assert earned["escalate", "escalate", False] == pytest.approx(8.01 - 0.60)
    assert earned["deny_with_rule", "deny_with_rule", True] == pytest.approx(8.01 - 3 - 0.60)
    assert settle(n, "deny_with_rule", "refund_money", 0, True).costs == {"policy_violation": 1, "false_promise": 1}
    assert settle(n, "escalate", "refund_money", 0, False).costs == {"policy_violation": 0, "false_promise": 0}


def test_expected_settlement_by_hand(desk: PolicyDesk) -> None:
    """Sending a replacement unread: right if the writer holds the account and the parcel is lost, else the price is gone."""
    at = Situation(INTENTS.index("missing"), 1, CALM, UNCHECKED, lost=RULES["lost"].index("reship"), id=0)
    (outcome,) = desk.model_of("train").outcomes(at, NUMBER["send_replacement"])
    right = 0.95 * 0.92
    assert outcome.reward == pytest.approx(right * 8.01 - (1 - right) * 40 - 0.60)
    assert outcome.costs["policy_violation"] == pytest.approx(1 - right)


def test_beliefs_are_the_frequencies_of_the_world(desk: PolicyDesk) -> None:
    world, n = desk.make("train"), desk.numbers
    tickets = [world._draw(np.random.default_rng(seed)) for seed in range(6_000)]
    seen = {(t.intent, t.policy["window"], source): [] for t in tickets for source in SOURCES}
    for t in tickets:
        for source, fact in t.facts().items():
            if source in FLOWS[t.intent].sources:
                seen[t.intent, t.policy["window"] if "window" in FLOWS[t.intent].rules else RULES["window"][0], source].append(fact)
    for (intent, window, source), facts in seen.items():
        if facts:
            rules = {"window": RULES["window"].index(window)} if "window" in FLOWS[intent].rules else {}
            believed = PolicyDeskModel(n, False).belief(Situation(INTENTS.index(intent), 0, CALM, UNCHECKED, **rules), source)
            assert abs(np.mean(facts) - believed) < 4 * np.sqrt(believed * (1 - believed) / len(facts)) + 1e-9
    assert np.mean([t.identity for t in tickets]) == pytest.approx(0.95, abs=0.012)


def test_shift_has_policies_never_met_before(desk: PolicyDesk) -> None:
    for intent, flow in FLOWS.items():
        known, unseen = policies(intent, False), policies(intent, True)
        assert known and unseen and all(policy not in known for policy in unseen)
        assert len(known) + len(unseen) == np.prod([len(RULES[rule]) for rule in flow.rules])
        for rule in flow.rules:  # every single value is met in training; only its company is new
            assert {policy[rule] for policy in known} == set(RULES[rule])
    world = desk.make("shift")
    for seed in range(50):
        world.reset(seed=seed)
        assert FLOWS[world.ticket.intent].held_out.items() <= world.ticket.policy.items()


@pytest.mark.slow
def test_references(desk: PolicyDesk) -> None:
    oracle = desk.oracle("train")
    worth = {name: reference.value for name, reference in oracle.references.items()}
    assert worth["informed"] == pytest.approx(8.01 - 0.60)
    assert worth["random"] < worth["best_constant"] < worth["heuristic"] < worth["constrained_optimum"] < worth["optimum"] < worth["informed"]
    assert worth["optimum"] == pytest.approx(5.401, abs=0.001)
    states = np.array([state for _, state in desk.model_of("train").openings()])
    assert (oracle.probabilities("best_constant", states)[:, NUMBER["escalate"]] == 1).all()
    assert (oracle.probabilities("proxy_optimum", states).argmax(axis=1) >= NUMBER["promise_refund"]).all()  # asks nothing
    for name, limit in desk.cost_limits.items():  # every limit binds
        assert oracle.references["optimum"].costs[name] > limit >= oracle.references["constrained_optimum"].costs[name] - 1e-9


def test_privacy(desk: PolicyDesk) -> None:
    world = desk.make("train")
    for policy_id, check, violations in [("email", "verify_email", 0), ("email", "verify_phone", 1), ("phone", "verify_phone", 0), ("phone", None, 1)]:
        for seed in range(1_000):
            world.reset(seed=seed)
            if world.ticket.policy["id"] == policy_id and world.ticket.identity and world.ticket.mood == CALM:
                break
        if check:
            world.step(NUMBER[check])
        assert world.step(NUMBER["look_up_order"])[4]["costs"] == {"privacy": violations}
    opened(world, identity=False, mood=CALM)
    *_, info = world.step(NUMBER["look_up_customer"])
    assert info["reward_terms"] == {"turn": -0.6, "breach": -16.0}


def test_a_failed_check_locks_the_account(desk: PolicyDesk) -> None:
    world = desk.make("train")
    opened(world, identity=False, mood=CALM)
    world.step(NUMBER[f"verify_{world.ticket.policy['id']}"])
    assert world.at.check == FAILED
    assert [ACTS[act] for act in np.flatnonzero(world.action_mask())] == ["deny_with_rule", "escalate", "close"]
    _, reward, *_ = world.step(NUMBER["deny_with_rule"])
    assert reward == pytest.approx(8.01 - 0.60) and world.success


def test_a_promise_calms_and_binds(desk: PolicyDesk) -> None:
    world = desk.make("train")
    opened(world, intent="late", mood=1, identity=True, honest=True)
    world.step(NUMBER["promise_refund"])
    for act in (*model.CHECKS, *SOURCES.values()):
        if world.action_mask()[NUMBER[act]]:
            assert not world.step(NUMBER[act])[2]  # nobody leaves any more
    assert world.at.check == PASSED
    *_, info = world.step(NUMBER["waive_fee"])
    assert info["costs"]["false_promise"] == 1


def test_annoyed_customers_leave(desk: PolicyDesk) -> None:
    world, left, met = desk.make("train"), 0, 0
    for seed in range(2_000):
        world.reset(seed=seed)
        calm = world.ticket.mood == CALM
        _, _, ended, _, info = world.step(NUMBER["look_up_order"])
        assert not (calm and ended)
        met, left = met + (not calm), left + ended
        assert not ended or (world.success is False and {"turn", "goodwill", "breach"} <= set(info["reward_terms"]))
    assert left / met == pytest.approx(0.10, abs=0.03)


@pytest.mark.slow
def test_a_ticket_can_be_met_again(desk: PolicyDesk) -> None:
    world = desk.make("train")
    met = []
    for seed in range(6):
        text, _ = world.reset(seed=seed, options={"ticket": 7})
        met.append((world.ticket, text))
    assert len({str(ticket) for ticket, _ in met}) == 1 and len({text for _, text in met}) == 6
    successes = repeated_trials(desk, "heuristic", "train", tickets=20, trials=4)
    assert successes.shape == (20, 4) and 0.3 < successes.mean() < 1


def test_pass_k() -> None:
    successes = np.array([[True, True, True, True], [True, True, False, False], [False] * 4])
    assert pass_k(successes, 1) == pytest.approx(successes.mean())
    assert pass_k(successes, 2) == pytest.approx((1 + 1 / 6 + 0) / 3)
    assert pass_k(successes, 4) == pytest.approx(1 / 3)


def test_text(desk: PolicyDesk) -> None:
    world = desk.make("test")
    for seed in range(30):
        text, _ = world.reset(seed=seed)
        for rule in FLOWS[world.ticket.intent].rules:
            label = {"id": "identity rule", "window": "return window rule", "waiver": "fee rule"}.get(rule)
            if label:
                told = [line.split(": ", 1)[1] for line in text.split("\n") if line.startswith(label)]
                assert len(told) == 2 and set(told) <= set(TEST[rule][world.ticket.policy[rule]])


def test_wordings() -> None:
    assert lexicon_overlap(TRAIN, TEST) == {}
    for bank, least in ((TRAIN, 60), (TEST, 12)):
        assert set(RULES) | {"intent", "mood", "price", "age", "delivery", "parcel", "tier", "payment", "fee", "photo", "reason", "check", "chat"} == set(bank)
        assert all(set(bank[rule]) == set(values) for rule, values in RULES.items()) and set(bank["intent"]) == set(INTENTS)
        for topic, values in bank.items():
            utterances = [utterance for many in values.values() for utterance in many]
            assert len(utterances) == len({utterance.lower() for utterance in utterances})
            assert all(set(u) <= set(CHARSET) for u in utterances)
            assert topic == "chat" or all(len(many) >= least for many in values.values())


def test_grounds_are_understood_as_no_act(desk: PolicyDesk) -> None:
    """A reason may not sound like another act than the one it is given for."""
    book, world = load_phrasebook(WORDINGS / "acts.yaml", ACTS), desk.make("train")
    phrases = set[str]()
    for seed in range(300):
        world.reset(seed=seed)
        for act in ("promise_refund", *SOURCES.values()):
            if world.step(NUMBER[act])[2]:
                break
            grounds = world.grounds()
            phrases |= {*grounds.true, *grounds.false}
            assert not set(grounds.true) & set(grounds.false)
    assert len(phrases) > 30 and all(book.understand(phrase) is None for phrase in phrases)
    assert book.understand("I am sorry, I can't refund this, it is outside our return window.") == NUMBER["deny_with_rule"]
    assert book.understand("I'll issue you a voucher.") == NUMBER["store_credit"]


def test_wrong_settings_are_named() -> None:
    node = OmegaConf.load(Path(model.__file__).parents[3] / "conf/domain/customer_service.yaml")
    node.environment = "PolicyDesk"
    node.worlds.PolicyDesk.numbers.leaves = 1.5
    with pytest.raises(ConfigError, match="numbers.leaves"):
        build_domain(node)
    node.worlds.PolicyDesk.numbers.leaves = 0.1
    node.worlds.PolicyDesk.numbers.ratings.pop("left")
    with pytest.raises(ConfigError, match="ratings needs exactly"):
        build_domain(node)
    node.worlds.PolicyDesk.numbers.intent_shares.fee = 0.5
    with pytest.raises(ConfigError, match="intent_shares must sum to 1"):
        build_domain(node)
