"""Gold, proxy and composite by hand; a world under another reward keeps account of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from framework.config import build, load_domain
from framework.errors import ConfigError
from framework.interfaces import RewardModel
from framework.ledger import Account
from framework.rewards.composite import Composite
from framework.rewards.function import FunctionReward
from framework.rewards.gold import Gold
from framework.rewards.guard import Guard
from framework.rewards.proxy import Proxy
from framework.types import Floats, Reply, Step
from framework.worlds.exploration import ExploringStarts
from framework.worlds.rewarded import RewardedWorld, announce

TURNS = [Step("a", "ask", {"turn": -1.0, "sale": 3.0}, {}, 4.0), Step("b", "stop", {}, {"format": 1.0}, -2.0), Step("c", "ask", {"turn": -1.0}, {}, 1.0)]


class Fixed(RewardModel):
    """The same scores, whatever happens."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.asked = scores, 0

    def score(self, turns: Sequence[Step]) -> Floats:
        self.asked += len(turns)
        return np.array(self.scores[: len(turns)])


def test_gold_is_the_sum_of_the_terms_and_proxy_the_proxy() -> None:
    assert Gold().score(TURNS).tolist() == [2.0, 0.0, -1.0]
    assert Proxy().score(TURNS).tolist() == [4.0, -2.0, 1.0]
    assert Gold().score([]).shape == Proxy().score([]).shape == (0,)


def test_composite_by_hand() -> None:
    reward = Composite({"gold": Gold(), "proxy": Proxy()}, {"gold": 2.0, "proxy": -0.5}, {}, [])
    assert reward.score(TURNS).tolist() == [2.0, 1.0, -2.5]
    assert reward.metrics() == {"gold": pytest.approx(1 / 3), "proxy": 1.0}
    assert reward.metrics() == {}


@pytest.mark.parametrize(
    ("gates", "paid"),
    [
        ({}, [6.0, -2.0, 0.0]),
        ({"proxy": 0.0}, [6.0, 0.0, 0.0]),
        ({"proxy": -2.0}, [6.0, 0.0, 0.0]),  # above, not at
        ({"proxy": -2.5}, [6.0, -2.0, 0.0]),
        ({"proxy": -2.5, "gold": 0.0}, [6.0, 0.0, 0.0]),
        ({"proxy": 5.0, "gold": -5.0}, [0.0, 0.0, 0.0]),
    ],
)
def test_every_gate_must_hold(gates: dict[str, float], paid: list[float]) -> None:
    reward = Composite({"gold": Gold(), "proxy": Proxy()}, {"gold": 1.0, "proxy": 1.0}, gates, [])
    assert reward.score(TURNS).tolist() == paid


@pytest.mark.parametrize(
    ("sequence", "paid"),
    [
        (["first", "second", "third"], [111.0, 11.0, 1.0, 0.0, -1.0]),
        (["third", "second", "first"], [111.0, 0.0, 100.0, 110.0, 109.0]),
        (["second"], [111.0, 11.0, 101.0, 110.0, 109.0]),
        (["first", "third"], [111.0, 11.0, 101.0, 10.0, 9.0]),  # who does not stand in it counts in any case
    ],
)
def test_a_part_of_the_sequence_counts_where_all_before_it_are_above_zero(sequence: list[str], paid: list[float]) -> None:
    parts = {"first": Fixed(1.0, 1.0, 1.0, 0.0, -1.0), "second": Fixed(1.0, 1.0, 0.0, 1.0, 1.0), "third": Fixed(1.0, 0.0, 1.0, 1.0, 1.0)}
    reward = Composite({**parts}, {"first": 1.0, "second": 10.0, "third": 100.0}, {}, sequence)
    assert reward.score(TURNS + TURNS[:2]).tolist() == paid
    assert reward.metrics() == {"first": 0.4, "second": 0.8, "third": 0.8}, "of what each gave, counted or not"


@pytest.mark.parametrize("gates", [{}, {"blank": 0.0}, {"gold": 0.0}])
@pytest.mark.parametrize("sequence", [[], ["blank", "gold"], ["gold", "blank"]])
def test_whoever_abstains_takes_the_turn_with_him(gates: dict[str, float], sequence: list[str]) -> None:
    reward = Composite({"gold": Gold(), "blank": Fixed(1.0, np.nan, 1.0)}, {"gold": 1.0, "blank": 0.0}, gates, sequence)
    assert np.isnan(reward.score(TURNS)).tolist() == [False, True, False]
    assert reward.score([]).shape == (0,)


def test_a_composite_from_settings() -> None:
    gold, proxy = ({"_target_": f"framework.rewards.{name.lower()}.{name}"} for name in ("Gold", "Proxy"))
    parts = {"parts": {"gold": gold, "proxy": proxy}, "weights": {"gold": 1, "proxy": 0.5}}
    node = {"_target_": "framework.rewards.composite.Composite", **parts, "gates": {}, "sequence": []}
    assert build(node, "reward").score(TURNS).tolist() == [4.0, -1.0, -0.5]
    assert build({**node, "gates": {"proxy": 0}, "sequence": ["gold", "proxy"]}, "reward").score(TURNS).tolist() == [4.0, 0.0, -1.0]
    for wrong, told in [
        ({"weights": {"gold": 1}}, "reward: parts and weights must have the same names, not gold, proxy and gold"),
        ({"gates": {"glod": 0}}, "gates: there is no part 'glod'; did you mean 'gold'?"),
        ({"gates": {"gold": "much"}}, "reward.gates.gold"),
        ({"sequence": ["glod"]}, "sequence: there is no part 'glod'; did you mean 'gold'?"),
        ({"sequence": ["gold", "proxy", "gold"]}, "sequence: a part may stand in it once, not gold, proxy, gold"),
        ({"weights": {"gold": "x", "proxy": 1}}, "reward.weights.gold"),
        ({"parts": {"gold": {"_target_": "os.system"}}}, "outside the packages"),
        ({"parts": {"gold": {"_target_": "framework.algorithms.sb3.PPO"}}}, "reward.parts.gold.total_steps: is missing"),
    ]:
        with pytest.raises(ConfigError) as raised:
            build({**node, **wrong}, "reward")
        assert told in str(raised.value)


def half_of(turn: Step) -> float | None:
    return None if turn.act == "stop" else turn.proxy / 2


def test_a_function_is_asked_about_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framework.rewards.function.resolve", lambda path, place: {"yours.half_of": half_of}[path])
    np.testing.assert_equal(FunctionReward("yours.half_of").score(TURNS), [2.0, np.nan, 0.5])


def test_a_world_under_another_reward_keeps_account_of_its_own() -> None:
    domain, returns = load_domain("finance", "SuitabilityDesk"), list[Account]()
    plain, paid = domain.make("train"), RewardedWorld(domain.make("train"), Proxy(), returns)
    assert plain.reset(seed=7)[0] == paid.reset(seed=7)[0]
    gold, liked, rng, ended = 0.0, 0.0, np.random.default_rng(0), False
    while not ended:
        act = int(rng.choice(np.flatnonzero(paid.action_mask())))
        kept = paid.get_state()
        paid.step(act)
        paid.set_state(kept)
        text, reward, *_ = plain.step(act)
        told, proxy, terminated, truncated, info = paid.step(act)
        assert (told, proxy) == (text, info["proxy"])
        gold, liked, ended = gold + float(reward), liked + proxy, terminated or truncated
    assert returns == [{"gold": pytest.approx(gold), "reward": pytest.approx(liked)}] * 2  # the last act was taken twice


class Doubtful(Fixed):
    """Doubts each turn as much as its number."""

    def doubts(self, turns: Sequence[Step]) -> Mapping[str, Floats]:
        return {"doubt": np.arange(len(turns), dtype=float)}


def test_an_account_has_the_mean_doubt_over_the_turns_of_the_episode() -> None:
    composite, accounts = Composite({"it": Doubtful(1.0), "gold": Gold()}, {"it": 1.0, "gold": 1.0}, {}, []), list[Account]()
    world = RewardedWorld(load_domain("finance", "SuitabilityDesk").make("train"), Guard(composite, 0.05, 60), accounts)
    for seed in (3, 4):
        world.reset(seed=seed)
        turns = 0
        while len(accounts) < seed - 2:
            world.set_state(json.loads(json.dumps(world.get_state())))
            world.step(int(np.flatnonzero(world.action_mask())[0]))
            turns += 1
        assert accounts[-1]["it/doubt"] == (turns - 1) / 2


def test_an_abstention_is_worth_what_turns_are_worth_on_average() -> None:
    reward = Fixed(np.nan)
    world = RewardedWorld(load_domain("finance", "SuitabilityDesk").make("train"), reward, [])
    world.reset(seed=1)
    assert world.step(0)[1] == 0.0, "nothing is known yet"
    for score in (-1.0, -4.0):
        reward.scores = (score,)
        world.idle()
    reward.scores = (np.nan,)
    assert world.idle()[1] == -2.5, "no better than usual, though every reward here is below zero"
    kept = json.loads(json.dumps(world.get_state()))
    world.reset(seed=2)
    world.set_state(kept)
    assert world.idle()[1] == -2.5, "nor after an interruption"


def test_acts_of_chance_ask_no_reward_and_count_for_nothing() -> None:
    reward = Fixed(1.0)
    world = RewardedWorld(load_domain("finance", "SuitabilityDesk").make("train"), reward, [])
    starts = ExploringStarts(world, share=1.0, most=5)
    starts.reset(seed=3)
    assert world.world.get_state()["steps"] > 0 and reward.asked == 0 and world.gold == 0.0


class Eager(Fixed):
    """Remembers what it was told to expect, and fails at it."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.expected: list[Step] = []

    def expect(self, turns: Sequence[Step]) -> None:
        self.expected += turns
        raise RuntimeError("not now")


def test_worlds_that_move_together_announce_what_will_be_scored() -> None:
    eager, domain = Eager(), load_domain("finance", "SuitabilityDesk")
    worlds = [RewardedWorld(domain.make("train"), Guard(Composite({"it": eager}, {"it": 1.0}, {}, []), 0.05, 60), []) for _ in range(2)]
    shown = [world.reset(seed=seed)[0] for seed, world in enumerate(worlds)]
    announce([*worlds, domain.make("train")], [Reply(1, "Let me ask."), Reply(-1, "Mumble."), Reply(0)])
    known = [world.information_state() for world in worlds]
    told = [Step(shown[0], worlds[0].acts[1], {}, {}, state=known[0], said="Let me ask."), Step(shown[1], "", {}, {}, state=known[1], said="Mumble.")]
    assert eager.expected == told
    assert worlds[0].step(1)[1] == 1.0, "what fails before is asked again"
    worlds[1].idle()
    assert [world.turns[-1].reply for world in worlds] == ["Let me ask.", "Mumble."]
    worlds[0].step(1)
    assert worlds[0].turns[-1].reply == worlds[0].acts[1], "who says nothing more is known by the act alone"
