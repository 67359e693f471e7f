"""Each algorithm learns what can be learned in words: which act pays, and which first act makes a later one pay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from speakers import OneTurn, TwoTurns, algorithm, earned, fresh, learn, picker, speaker
from transformers import AutoModelForCausalLM, AutoTokenizer

from framework.lm.adapters import Lora

ALGORITHMS = [
    ("grpo", {"loss": "dr_grpo"}),
    ("grpo", {"loss": "dr_grpo", "credit": "turn"}),
    ("reinforce", {"advantage": "rloo"}),
    ("reinforce", {"advantage": "reinforce_plus_plus"}),
    ("ppo_text", {"vf_coef": 0.5}),
    ("best_of_n", {}),
]


def named(value: Any) -> str:
    return value if isinstance(value, str) else "-".join(map(str, value.values()))


@pytest.mark.slow
def test_words_alone_earn_what_chance_earns(taught: Path) -> None:
    assert 0.1 < earned(speaker(taught), OneTurn, 128) < 0.6
    assert earned(speaker(taught, TwoTurns), TwoTurns, 128) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["grpo", "dapo", "gspo", "cispo"])
def test_what_pays_is_said(loss: str, taught: Path) -> None:
    policy = speaker(taught)
    learn(policy, OneTurn, algorithm("grpo", loss=loss))
    assert earned(policy, OneTurn) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changed"), ALGORITHMS, ids=named)
def test_a_first_act_is_paid_for_what_it_makes_possible(name: str, changed: dict[str, Any], taught: Path) -> None:
    policy = speaker(taught, TwoTurns)
    learn(policy, TwoTurns, algorithm(name, total_steps=2_000, **changed))
    assert earned(policy, TwoTurns) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 6])
def test_what_was_learnt_is_not_lost_to_a_critic_that_is_a_little_wrong(seed: int, taught: Path) -> None:
    """Once all episodes earn the same, only the critic's errors are left to learn from; magnified to deviation 1 they undo what was learnt."""
    policy = speaker(taught, TwoTurns)
    torch.manual_seed(seed)
    learn(policy, TwoTurns, algorithm("ppo_text", total_steps=2_000))
    assert earned(policy, TwoTurns) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grpo", "ppo_text"])
def test_an_adapter_learns_what_pays(name: str, taught: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(taught)
    with torch.no_grad():
        model.model.norm.weight.mul_(4)  # embeddings so small, and frozen, leave no reply much likelier than another
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(taught).save_pretrained(tmp_path)
    policy = fresh(tmp_path, OneTurn, Lora())
    assert earned(policy, OneTurn, 256) < 0.45
    learn(policy, OneTurn, algorithm(name, total_steps=2_000, learning_rate=2e-3, learning_rate_end=0.0))
    assert earned(policy, OneTurn, 256) >= 0.8


@pytest.mark.slow
def test_names_are_scored_until_the_right_one_is_picked(micro: Path) -> None:
    policy = picker(micro, TwoTurns)
    learn(policy, TwoTurns, algorithm("grpo", total_steps=1_500))
    assert earned(policy, TwoTurns) >= 0.9
