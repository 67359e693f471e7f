"""BabyAI in words: what is told is what is seen, the bot does what it is known to do, and it can be learnt from."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from framework.config import CONF, build, load_domain
from framework.errors import ConfigError, MissingExtraError
from framework.evaluation import evaluate
from framework.interfaces import Learning
from framework.lm.tfidf import TfidfEncoder
from framework.policies.head import HeadPolicy
from framework.rollout import observations, onwards, random_acts
from framework.seeding import seed_everything
from framework.worlds.wordings import load_bank

pytest.importorskip("minigrid", reason="needs the extra 'minigrid'")
from domains.minigrid.describer import Describer, allowed  # noqa: E402

BANKS = {split: load_bank(Path(__file__).parents[2] / "domains" / "minigrid" / "wordings" / f"{split}.yaml") for split in ("train", "test")}


def view(**things: tuple[int, int, int]) -> np.ndarray:
    """A view of empty cells with things at `xCOLUMNyROW`."""
    image = np.tile(np.array([1, 0, 0], np.uint8), (7, 7, 1))
    for at, thing in things.items():
        image[int(at[1]), int(at[3])] = thing
    return image


def test_a_view_is_told_thing_by_thing() -> None:
    image = view(x3y6=(5, 2, 0), x3y5=(6, 0, 0), x1y4=(7, 5, 0), x5y6=(4, 4, 2), x3y2=(2, 5, 0), x0y0=(0, 0, 0), x6y6=(8, 1, 0))
    lines = Describer(BANKS["train"])(None, {"image": image, "mission": "go to the red ball"})
    assert lines == [
        "your task: go to the red ball",
        "you carry a blue key",
        "you see a wall 4 steps ahead",
        "you see a red ball 1 step forward",
        "there is a locked yellow door 2 steps right",
        "you see a goal 3 steps to the right",
        "a grey box lies 2 steps ahead and 2 steps left",
    ]


def test_the_test_wordings_are_others_and_say_the_same() -> None:
    image = view(x4y3=(6, 0, 0))
    one, other = (Describer(bank)(None, {"image": image, "mission": "go"}) for bank in BANKS.values())
    assert "red ball" in one[1] and "red ball" in other[1] and not set(one) & set(other)


def test_text_keeps_its_limits_and_masks_leave_what_can_be_done() -> None:
    domain = load_domain("minigrid", "PickupLoc")
    world = domain.make("train")
    for shown in itertools.islice(observations(world, 3), 100):
        assert world.observation_space.contains(shown) and max(map(len, shown.split("\n"))) < 80
    world.reset(seed=2)
    env = world.env.unwrapped
    for _ in onwards(world, random_acts(2)):
        mask, front = allowed(env), env.grid.get(*env.front_pos)
        assert mask[:2].all() and not mask[6] and mask[2] == (front is None or front.can_overlap())
        assert mask[4] == (env.carrying is not None and front is None)


@pytest.mark.parametrize("level", ["GoToRedBallGrey", "PickupLoc"])
def test_the_bot_does_every_mission(level: str) -> None:
    domain = load_domain("minigrid", level)
    domain.episodes = 25
    world = domain.make("validation")
    for number in range(25):
        world.reset(seed=number)
        turns = list(onwards(world, domain.expert(world, number)))
        assert turns[-1].terminated and turns[-1].reward > 0.5 and all(turn.mask[turn.action] for turn in turns)


def test_the_bot_knows_what_to_do_off_its_way_too() -> None:
    shown = list(itertools.islice(load_domain("minigrid", "PickupLoc").demonstrations("train", seed=0, wander=0.5), 300))
    assert len({int(demonstration.action_values.argmax()) for demonstration in shown}) >= 4
    assert all((np.isneginf(d.action_values) == ~d.mask).all() and d.action_values.max() == 1 for d in shown)


def test_a_level_that_is_not_there_is_an_error() -> None:
    domain = load_domain("minigrid", "GoToRedBallGrey")
    domain.level = "BabyAI-GoToRedBallGray-v0"
    with pytest.raises(ConfigError, match="GoToRedBallGray.*level: gymnasium does not make"):
        domain.make("train")


def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "domains.minigrid.describer", raising=False)
    monkeypatch.setitem(sys.modules, "minigrid.core.constants", None)
    with pytest.raises(MissingExtraError, match="comes with the extra 'minigrid'"):
        load_domain("minigrid", "GoToRedBallGrey").make("train")


@pytest.mark.slow
def test_cloning_the_bot_and_learning_from_reward_beat_random_acts() -> None:
    domain = load_domain("minigrid", "GoToRedBallGrey")
    domain.episodes = 60
    seed_everything(0)
    policy = HeadPolicy(TfidfEncoder(max_features=500), n_acts=len(domain.acts), width=64, dropout=0.0, max_lines=16, cache=10_000)
    policy.prepare(list(observations(domain.make("train"), 30)), torch.device("cpu"))
    few = {"demonstrations": 4_000, "batch_size": 128, "reader_batch_size": 8, "epochs": 12, "lessons": 0.0, "weight_decay": 0.0}
    cloning = build({**OmegaConf.load(CONF / "warm_start" / "cloning.yaml"), **few}, "warm_start")
    cloning.fit(policy, domain.demonstrations("train", seed=0), lambda done, note: None)
    small = {"total_steps": 2_048, "n_envs": 8, "n_steps": 64, "batch_size": 128, "learning_rate": 1e-4}
    learner = build({**OmegaConf.load(CONF / "algo" / "ppo.yaml"), **small}, "algo")
    learner.learn(policy, lambda: domain.make("train"), Learning(lambda steps, metrics: True, seed=0, device=torch.device("cpu")))
    found = evaluate(policy, domain, "validation", 60)
    assert found.score is not None and found.score.low > 0.1, (found.returns, found.score)
