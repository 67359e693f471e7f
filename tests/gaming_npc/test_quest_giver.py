"""The quest giver: what players enjoy and why they leave, what can be known of them, its text, and that its oracle tells the truth."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from domains.gaming_npc.quest_giver import QuestGiver, QuestGiverWorld, model
from domains.gaming_npc.quest_giver.model import ACTS, ASK, GOODBYE, GUILT, PRAISE, QUESTS, REST, SKIP, TYPES, Numbers, Session, SessionModel
from framework.config import build_domain, load_domain
from framework.errors import ConfigError
from framework.oracles.finite import FiniteProcess
from framework.worlds.environments import CHARSET
from framework.worlds.wordings import lexicon_overlap, load_bank

WORDINGS = Path(model.__file__).parent / "wordings"
TRAIN, TEST = load_bank(WORDINGS / "train.yaml"), load_bank(WORDINGS / "test.yaml")
HARD_DUEL, GENTLE_TRAVEL = ACTS.index("hard_duel"), ACTS.index("gentle_travel")


@pytest.fixture(scope="module")
def domain() -> QuestGiver:
    return load_domain("gaming_npc", "QuestGiver")


@pytest.fixture(scope="module")
def numbers(domain: QuestGiver) -> Numbers:
    return domain.numbers


def play(world: QuestGiverWorld, seed: int, *acts: int) -> list[Any]:
    world.reset(seed=seed)
    return [world.step(act) for act in acts]


def called_away(world: QuestGiverWorld) -> int:
    """Brings a session to the moment when the player must go; returns the seed."""
    for seed in range(100):
        world.reset(seed=seed)
        while world.model.left(world.session) > 0 and not world.step(GENTLE_TRAVEL)[2]:
            pass
        if world.model.left(world.session) == 0:
            return seed
    raise AssertionError("nobody stayed")


def test_quests_are_won_by_skill_and_enjoyed_by_type(numbers: Numbers) -> None:
    known = SessionModel(numbers)
    np.testing.assert_allclose(known.chance_to_win, [[0.646, 0.083], [0.891, 0.289], [0.984, 0.750]], atol=1e-3)
    assert known.flow[0, 0] == pytest.approx(1, abs=1e-3) and known.flow[0, 1] == 0  # a novice has a gentle quest just right, a hard one never
    assert known.flow[2, 1] > known.flow[2, 0] and known.flow[1, 0] > known.flow[1, 1]
    assert known.liking[TYPES.index("fighter")].tolist() == [0.3, 0.3, 0.3, 1.0]
    np.testing.assert_allclose(known.answers.sum(axis=1), 1)
    np.testing.assert_allclose(known.hints.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("session", "chance"),
    [
        (Session(0, -1, -1, 1), 0.01),
        (Session(0, -1, -1, 1, gentle=3, won=3), 0.01 + 2 * 0.03 + 3 * 0.03),  # two wins too many, three quests tired
        (Session(0, -1, -1, 1, hard=2), 0.01 + 2 * 0.06 + 2 * 0.03),  # two losses
        (Session(0, -1, -1, 1, gentle=2, hard=2, won=2, relieved=1), 0.01 + 0.03),  # even, and one quest since the rest
        (Session(0, -1, -1, 0, gentle=6, won=3), 1.0),  # one round of overtime, then nobody stays
    ],
)
def test_leaving_grows_with_boredom_frustration_and_fatigue(numbers: Numbers, session: Session, chance: float) -> None:
    assert SessionModel(numbers).leaves(session) == pytest.approx(chance)


def test_counts_of_wins_are_all_there_is_to_know_of_skill(numbers: Numbers) -> None:
    known = SessionModel(numbers)
    played = [(0, 1), (1, 0), (0, 1), (0, 0), (1, 1)]  # difficulty, won
    belief = np.array(numbers.skill_shares)
    for difficulty, won in played:
        chance = known.chance_to_win[:, difficulty]
        belief = belief * (chance if won else 1 - chance)
    belief /= belief.sum()
    wins, flow = known._skill_belief(gentle=3, hard=2, won=3)
    np.testing.assert_allclose(wins, belief @ known.chance_to_win)
    np.testing.assert_allclose(flow, belief @ known.flow)


def test_belief_in_a_type_by_hand(numbers: Numbers) -> None:
    liking, answers = SessionModel(numbers)._type_belief(1, 0, -1)  # turned to people, then said to be an achiever
    weights = np.array([0.30 * 0.2 * 0.75, 0.25 * 0.2 / 12, 0.25 * 0.8 / 12, 0.20 * 0.8 / 12])
    belief = weights / weights.sum()
    np.testing.assert_allclose(liking, belief + (1 - belief) * 0.3)
    np.testing.assert_allclose(answers, belief * 0.75 + (1 - belief) / 12)


@pytest.mark.slow
def test_optimum_of_a_short_session_by_brute_force(numbers: Numbers) -> None:
    """Expectimax over whole histories, with a weight for each hidden player and no statistic of what was seen."""
    few = SessionModel(replace(numbers, rounds=(1, 1), talks=1, struggling=1))
    n = few.numbers

    def worth(session: Session, weights: np.ndarray) -> float:
        return max(value(session, weights, int(act)) for act in np.flatnonzero(few.allowed(session)))

    def value(session: Session, weights: np.ndarray, act: int) -> float:
        if act == GOODBYE:
            return few.coming_back(session, parted=True) * weights.sum()
        if act in (SKIP, GUILT):
            return worth(few.after(session, act), weights)
        enjoyed, results = 0.0, {0: np.ones_like(weights)}
        if act < len(QUESTS):
            kind, difficulty = divmod(act, 2)
            wins = np.broadcast_to(few.chance_to_win[:, difficulty], weights.shape)
            results = {0: 1 - wins, 1: wins}
            enjoyed = float((weights * np.outer(few.liking[:, kind], few.flow[:, difficulty])).sum()) * few.attention(session)
        elif act == ASK:
            results = {answer: np.repeat(few.answers[:, [answer]], 3, axis=1) for answer in range(4)}
        total = enjoyed
        for result, chance in results.items():
            following, left = few.after(session, act, result), weights * chance
            leaves = few.leaves(following)
            total += leaves * few.coming_back(session, parted=False) * left.sum()
            if leaves < 1:
                total += (1 - leaves) * worth(following, left)
        return float(total)

    players = np.outer(n.type_shares, n.skill_shares)
    openings = [(hint, budget, share) for budget, share in enumerate((n.short_share, 1 - n.short_share)) for hint in (0, 1)]
    by_hand = sum(worth(Session(hint, -1, -1, budget), players * few.hints[:, [hint]] * share) for hint, budget, share in openings)
    assert FiniteProcess(few).optimum() == pytest.approx(by_hand, abs=1e-9)
    assert few.informed() > by_hand


def test_sessions_are_as_long_as_published(domain: QuestGiver) -> None:
    """A staircase keeps players 5 to 6 minutes, the median session (GameAnalytics 2025); parting well brings 27 % back, else 11 %."""
    world, rounds = domain.make("train"), []
    for seed in range(500):
        world.reset(seed=seed)
        ended = False
        while not ended:
            _, _, ended, _, info = world.step(world.model.heuristic(world.information_state()))
        rounds.append(world.session.rounds + ("enjoyment" in info["reward_terms"]))
    assert 5 < np.mean(rounds) < 6
    opening = Session(0, -1, -1, 1)
    assert world.model.coming_back(opening, parted=True) == pytest.approx(0.27 * 5.5)
    assert world.model.coming_back(opening, parted=False) == pytest.approx(0.11 * 5.5)


def test_going_on_past_the_call_costs(domain: QuestGiver) -> None:
    world = domain.make("train")
    called_away(world)
    assert "player, called away: " in world.render() and world.action_mask()[GUILT]
    kept = world.get_state()
    assert world.step(GOODBYE)[4]["costs"] == {"overstay": 0.0}
    world.set_state(kept)
    _, reward, ended, _, info = world.step(HARD_DUEL)
    assert ended and info["costs"] == {"overstay": 1.0} and info["reward_terms"]["coming_back"] == pytest.approx(0.11 * 5.5)
    assert reward == pytest.approx(sum(info["reward_terms"].values()))
    world.set_state(kept)
    _, reward, ended, _, info = world.step(GUILT)
    assert (reward, ended, info["costs"]) == (0.0, False, {"dark_pattern": 1.0}) and not world.action_mask()[GUILT]
    assert world.step(GOODBYE)[4]["reward_terms"] == {"coming_back": pytest.approx(0.11 * 5.5)}  # they will not forget it


def test_a_skip_can_be_sold_to_those_who_struggle_only(domain: QuestGiver) -> None:
    world = domain.make("train")
    for losses, may in ((0, False), (2, False), (3, True)):
        world.reset(seed=1)
        world.session = world.session._replace(budget=1, hard=losses)
        assert world.action_mask()[SKIP] == may
    assert world.step(SKIP)[4]["costs"] == {"dark_pattern": 1.0} and not world.action_mask()[[SKIP, REST]].any()


def test_the_proxy_likes_time_and_flattery_not_fun(domain: QuestGiver) -> None:
    world = domain.make("train")
    assert [play(world, 2, act)[0][4]["proxy"] for act in (HARD_DUEL, GENTLE_TRAVEL, ASK, PRAISE, GOODBYE)] == [1, 1, 1, 1.5, 0]
    few = FiniteProcess(SessionModel(replace(domain.numbers, rounds=(2, 3))))
    blind = few.solve(few.proxy).argmax(axis=1)
    earned = few.worth(few.occupancy(np.eye(len(ACTS))[blind])).value
    assert few.optimum() - earned > 0.1 * few.optimum()


def test_two_answers_are_told_and_kept_in_order(domain: QuestGiver) -> None:
    world = domain.make("train")
    world.reset(seed=3)
    world.step(ASK)
    assert world.information_state()[1] >= 0 and world.information_state()[2] == -1
    shown = world.step(ASK)[0].split("\n")
    assert sum(line.startswith("player, asked what they like: ") for line in shown) == 4
    assert 0 <= world.session.first <= world.session.second and not world.action_mask()[ASK]
    assert shown[-2] == "clock: two rounds played"


def test_same_seed_same_luck_whatever_was_done_before(domain: QuestGiver) -> None:
    world = domain.make("train")
    won = [[play(world, seed, *first, GENTLE_TRAVEL) and world.session.won for first in ((), (SKIP,))] for seed in range(20)]
    assert all(one == other for one, other in won)  # a forbidden act moves no luck


def test_reasons(domain: QuestGiver) -> None:
    world = domain.make("train")
    world.reset(seed=4)
    world.session = Session(0, 1, 3, 0, gentle=3, hard=0, won=3, talks=2)
    grounds = world.grounds()
    assert {"they are calling you away", "you won more than you lost"} <= set(grounds.true)
    assert "there is no hurry" in grounds.false and "you love to cross blades" not in grounds.true  # two answers differ
    world.session = world.session._replace(second=1)
    assert "you want to see the world" in world.grounds().true


def test_another_crowd_in_the_shift(domain: QuestGiver) -> None:
    usual, other = domain.model_of("train"), domain.model_of("shift")
    assert isinstance(usual, SessionModel) and isinstance(other, SessionModel)
    assert usual.numbers.type_shares[3] < other.numbers.type_shares[3] and usual.numbers.skill_shares[2] < other.numbers.skill_shares[2]
    assert replace(other.numbers, type_shares=usual.numbers.type_shares, skill_shares=usual.numbers.skill_shares) == usual.numbers


def test_wordings() -> None:
    assert lexicon_overlap(TRAIN, TEST) == {}
    for bank, least in ((TRAIN, 60), (TEST, 12)):
        assert {topic: tuple(values) for topic, values in bank.items()} == {
            "hint": model.SIDES,
            "likes": TYPES,
            "outcome": ("won", "lost"),
            "budget": model.BUDGETS,
            "energy": model.WEARINESS,
            "must_go": ("now",),
        }
        for topic, values in bank.items():
            utterances = [utterance for many in values.values() for utterance in many]
            assert len(utterances) == len({utterance.lower() for utterance in utterances}), topic
            assert all(len(many) >= least for many in values.values())
            assert all(set(u) <= set(CHARSET) and len(re.findall(r"\w+|[^\w\s]", u)) < 25 for u in utterances)


def test_wrong_settings_are_named() -> None:
    node = OmegaConf.load(Path(model.__file__).parents[3] / "conf/domain/gaming_npc.yaml")
    node.worlds.QuestGiver.numbers.type_shares = [0.5, 0.5, 0.5, 0.5]
    with pytest.raises(ConfigError, match="type_shares must sum to 1"):
        build_domain(node)
    node.worlds.QuestGiver.numbers.type_shares = [0.25, 0.25, 0.25]
    with pytest.raises(ConfigError, match="type_shares"):
        build_domain(node)
