"""What a turn gives away: by hand, and against gold in every world whose optimum is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from omegaconf import OmegaConf

from framework.config import CONF, load_domain, options
from framework.errors import ConfigError
from framework.gradients.quarry import Quarry
from framework.interfaces import Domain
from framework.rewards.regret import Regret
from framework.rollout import random_acts
from framework.seeding import episode_seed
from framework.types import Step
from framework.worlds.rewarded import RewardedWorld

DIG, BLAST, LEAVE = "dig", "blast", "leave"
LAST_SOFT, LAST_HARD = (4, 0), (4, 1)
KNOWN = [name for name in options("domain") if name not in ("minigrid", "trading")]


def step(act: str, state: tuple[int, ...], left: tuple[int, ...] | None = None, **terms: float) -> Step:
    return Step("", act, terms, {}, 0.0, state, left)


def test_by_hand() -> None:
    # At the last layer digging pays 1 in soft rock and -0.5 in hard, blasting -0.8, leaving nothing. Blasting is forbidden in soft rock.
    turns = [step(DIG, LAST_SOFT), step(LEAVE, LAST_SOFT), step(DIG, LAST_HARD), step(BLAST, LAST_HARD), step(LEAVE, LAST_HARD)]
    assert Regret(Quarry()).score(turns) == pytest.approx([0.0, -1.0, -0.5, -0.8, 0.0])


def test_who_is_not_understood_gives_away_what_chance_would() -> None:
    turns = [step("", LAST_SOFT), step("", LAST_HARD), step(BLAST, LAST_SOFT)]  # to blast soft rock is forbidden
    assert Regret(Quarry()).score(turns) == pytest.approx([(1 + 0) / 2 - 1, (-0.5 - 0.8 + 0) / 3, (1 + 0) / 2 - 1])


def test_the_clock_takes_what_was_still_to_be_had() -> None:
    assert Regret(Quarry()).score([step(DIG, LAST_SOFT, LAST_SOFT, pay=1.0, abandoned=-0.25)]) == pytest.approx([-1.0 - 0.25])


def test_of_no_turns_there_is_none() -> None:
    assert Regret(Quarry()).score([]).shape == (0,)


def test_a_world_that_is_only_played_has_none() -> None:
    with pytest.raises(ConfigError, match="has none; use reward=gold"):
        Regret(load_domain("trading", "Stocks")).prepare([])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "environment"), [(name, world) for name in KNOWN for world in OmegaConf.load(CONF / "domain" / f"{name}.yaml")["worlds"]])
def test_over_episodes_it_is_gold_less_the_optimum(name: str, environment: str) -> None:
    domain: Domain = load_domain(name, environment)
    oracle, accounts = domain.oracle("train"), list[dict[str, float]]()
    world = RewardedWorld(domain.make("train"), Regret(domain), accounts)
    gold = []
    for number in range(150):
        choose = random_acts(number)
        _, info = world.reset(seed=episode_seed("train", number))
        ended = False
        while not ended:
            *_, terminated, truncated, info = world.step(choose(world, info["action_mask"]))
            ended = terminated or truncated
            if number == 0 and not ended:
                world.set_state(json.loads(json.dumps(world.get_state())))
        gold.append(accounts[-1]["gold"])
    difference = np.array(gold) - np.array([account["reward"] for account in accounts[-150:]])
    assert difference.mean() == pytest.approx(oracle.references["optimum"].value, abs=4 * difference.std() / 150**0.5 + 1e-9)
    paid = []
    for number in range(20):  # the optimum gives nothing away
        _, info = world.reset(seed=episode_seed("train", number))
        ended = False
        while not ended:
            act = int(oracle.action_values(np.array([world.information_state()]))[0].argmax())
            _, reward, terminated, truncated, info = world.step(act)
            paid.append(reward)
            ended = terminated or truncated
    assert paid == pytest.approx([0.0] * len(paid), abs=1e-9)
