"""Any gymnasium environment with numbered acts is a text world; and what is only played is measured by playing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from framework.conformance import check_domain
from framework.constrained import check_limits
from framework.errors import ConfigError
from framework.evaluation import evaluate
from framework.interfaces import Policy, World
from framework.rollout import Choose, onwards, random_acts
from framework.seeding import episode_seed
from framework.types import Bools, Ints, Observations
from framework.worlds.environments import CHARSET
from framework.worlds.gym_worlds import GymWorld
from framework.worlds.played import PlayedDomain

ACTS = ("left", "down", "right", "up")
WAY = (0, 3, 3, 3, 0, 0, 0, 0, 3, 1, 0, 0, 0, 2, 1, 0)  # the best there is on slippery ice: it gets over in about three of four


def place(env: Any, observation: Any) -> list[str]:
    return [f"row {observation // 4}, column {observation % 4}"]


class Lake(PlayedDomain):
    """The example of domains/README.md."""

    name, environment, acts = "lake", "FrozenLake", ACTS

    def make(self, split: str) -> GymWorld:
        return GymWorld(gymnasium.make("FrozenLake-v1", is_slippery=True), self.acts, place, max_steps=100)

    def expert(self, world: World, number: int) -> Choose:
        return lambda world, mask: WAY[world.env.unwrapped.s]  # type: ignore[attr-defined]


class Script(Policy):
    def __init__(self, way: tuple[int, ...] = WAY) -> None:
        self.way = way

    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        squares = [4 * int(text[4]) + int(text[-1]) for text in observations.texts]
        return np.array([self.way[square] for square in squares])


def cart(**changed: Any) -> GymWorld:
    def told(env: Any, observation: Any) -> list[str]:
        return [f"{name}: {value:.3f}" for name, value in zip(("place", "speed", "tilt", "turn"), observation, strict=True)]

    return GymWorld(gymnasium.make("CartPole-v1"), ("push left", "push right"), **{"describe": told, "max_steps": 40, **changed})


def test_gymnasium_accepts_it() -> None:
    check_env(cart(), skip_render_check=True)


def test_the_environment_goes_on_exactly_from_a_state_in_json() -> None:
    world, fresh = Lake().make("train"), Lake().make("train")
    for number in range(20):
        world.reset(seed=number)
        for turn in onwards(world, random_acts(number)):
            kept = json.loads(json.dumps(world.get_state()))
            fresh.set_state(kept)
            assert fresh.render() == turn.text and fresh.get_state() == kept
        ends = [([turn.told for turn in onwards(w, random_acts(number))], w.reset()[0]) for w in (world, fresh) if w.set_state(kept) is None]
        assert ends[0] == ends[1]


def test_text_is_what_an_observation_may_be() -> None:
    odd = cart(describe=lambda env, observation: ["", "a cha\u0307rm\ttab", "two\nlines", "é"])
    shown, _ = odd.reset(seed=0)
    assert shown == "a cha?rm tab\ntwo\nlines\n?" and odd.observation_space.contains(shown) and set(shown) <= set(CHARSET)
    for said in ([], ["a" * 2_001]):
        with pytest.raises(ConfigError, match="CartPole-v1: its describer wrote .* say less, or set max_characters"):
            cart(describe=lambda env, observation, said=said: said).reset(seed=0)
    assert len(cart(describe=lambda env, observation: ["a" * 2_001], max_characters=3_000).reset(seed=0)[0]) == 2_001


def test_masks_costs_and_clocks() -> None:
    def charge(env: Any, info: Mapping[str, Any]) -> dict[str, float]:
        return {"far": float(abs(env.state[0]) > 0.01)}

    world = cart(mask=lambda env: np.array([env.state[0] > 0, True]), costs=charge, max_steps=3)
    world.reset(seed=3)
    mask: Bools = world.action_mask()
    assert mask.dtype == bool and mask[1]
    turns = list(onwards(world, random_acts(0)))
    assert len(turns) == 3 and not turns[-1].terminated and all(set(turn.info["costs"]) == {"far"} for turn in turns)
    assert all(turn.info["reward_terms"] == {"reward": 1.0} for turn in turns)
    world.reset(seed=3)
    taken = len(world.taken)
    _, reward, _, _, info = world.step(int(np.flatnonzero(~world.action_mask())[0])) if not world.action_mask().all() else world.idle()
    assert reward == 0 and info["costs"] == {"format": 1.0} and len(world.taken) == taken  # the environment was not asked


def test_an_environment_may_end_an_episode_by_its_own_clock() -> None:
    env = gymnasium.make("FrozenLake-v1", is_slippery=False, max_episode_steps=2)
    world = GymWorld(env, ACTS, place, max_steps=30)
    world.reset(seed=0)
    assert [world.step(0)[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_what_cannot_be_wrapped_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="CartPole-v1: it has 2 acts, but 1 were named: push"):
        GymWorld(gymnasium.make("CartPole-v1"), ("push",), place, 10)
    with pytest.raises(ConfigError, match=r"Pendulum-v1: its acts are Box.* Discrete"):
        GymWorld(gymnasium.make("Pendulum-v1"), ("push",), place, 10)


def test_returns_are_counted_as_they_happen_and_scored_between_chance_and_the_expert() -> None:
    lake = Lake(episodes=60)
    oracle = lake.oracle("test")
    best = evaluate(Script(), lake, "test", 60)
    assert best.score is not None and best.score.mean == best.score.low == best.score.high == 1.0  # the same episodes, the same acts
    assert best.returns.mean == oracle.references["expert"].value and oracle.references["expert"].episodes == 60
    world, earned = lake.make("test"), []
    for number in range(60):
        world.reset(seed=episode_seed("test", number))
        earned.append(sum(turn.reward for turn in onwards(world, random_acts(number))))
    assert oracle.references["random"].value == np.mean(earned)
    other = evaluate(Script((1, *WAY[1:])), lake, "test", 80)  # more episodes than there are to compare with
    share = (other.values[:60].mean() - np.mean(earned)) / (best.returns.mean - np.mean(earned))
    assert other.score is not None and other.score.low < other.score.mean < other.score.high and other.score.mean == pytest.approx(share)
    few = evaluate(Script((1, *WAY[1:])), lake, "test", 20)  # the yardstick is that of all 60
    share = (few.values - np.array(earned[:20])).mean() / (best.returns.mean - np.mean(earned))
    assert few.score is not None and few.score.mean == pytest.approx(share)


def test_demonstrations_are_what_the_expert_does() -> None:
    shown = [demonstration for demonstration, _ in zip(Lake().demonstrations("train", seed=1), range(50), strict=False)]
    assert len({demonstration.observation for demonstration in shown}) > 3
    for demonstration in shown:
        square = 4 * int(demonstration.observation[4]) + int(demonstration.observation[-1])
        assert demonstration.action_values.tolist() == [float(act == WAY[square]) for act in range(4)]


def test_what_nobody_knows_is_an_error_that_says_so() -> None:
    lake = Lake(episodes=5)
    lake.cost_limits = {"wet": 0.1}
    assert set(lake.oracle("test").references) == {"random", "expert"} and not lake.oracle("test").exact
    for asked in (lambda o: o.action_values(np.zeros((1, 1), np.int64)), lambda o: o.probabilities("random", np.zeros((1, 1), np.int64))):
        with pytest.raises(ConfigError, match="lake/FrozenLake: nobody knows"):
            asked(lake.oracle("test"))
    with pytest.raises(ConfigError, match="nobody knows the optimum"):
        check_limits(lake)


def test_an_expert_that_is_no_better_than_chance_is_no_yardstick() -> None:
    class Lost(Lake):
        def expert(self, world: World, number: int) -> Choose:
            return lambda world, mask: 0

    with pytest.raises(ConfigError, match="its expert earns 0 and random acts .*no clear yardstick"):
        evaluate(Script(), Lost(episodes=200), "test", 5)


@pytest.mark.slow
def test_the_kit_checks_what_can_be_checked() -> None:
    checks = {check.name: check for check in check_domain(Lake(episodes=50))}
    assert all(check.passed for check in checks.values()), [check for check in checks.values() if not check.passed]
    assert checks["lemma"].detail.startswith("left out") and "expert" in checks["yardstick"].detail
