"""The warm start's targets and lessons against hand computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from framework.algorithms.comprehension import Comprehension
from framework.algorithms.lessons import SpokenSFT
from framework.config import CONF, build
from framework.lm.adapters import Full
from framework.lm.causal import CausalLM
from framework.types import Conversation, Message


def test_lessons_are_the_mean_cross_entropy_of_each_component() -> None:
    states = np.array([[0, -1, 7], [3, -1, 5], [0, 2, 5]])  # two values, two values, two values
    lessons, meaning = Comprehension(states, 4), torch.randn(2, 4)
    scores = lessons.tell(meaning).detach().numpy()
    rows = [1, 2]
    told = [(1, 0, 0), (0, 1, 0)]  # numbers of the values among the sorted ones: 0 < 3, -1 < 2, 5 < 7
    expected = []
    for row, classes in enumerate(told):
        for part, right in zip(np.split(scores[row], 3), classes, strict=True):
            expected.append(np.log(np.exp(part).sum()) - part[right])
    assert lessons(meaning, torch.tensor(rows)).item() == pytest.approx(np.mean(expected), abs=1e-6)


def test_targets_are_softmax_of_action_values_in_units_of_the_mean_gap() -> None:
    cloning = build({**OmegaConf.load(CONF / "warm_start" / "cloning.yaml"), "temperature": 0.5}, "warm_start")
    values = np.array([[1.0, 3.0, -np.inf], [0.0, 0.0, 3.0]])
    gap = ((3 - 2) + (3 - 1)) / 2
    expected = np.exp(values / (0.5 * gap))
    np.testing.assert_allclose(cloning._targets(values), expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("pass_tokens", [8_192, 24])
def test_a_lesson_in_words_is_what_to_say_and_what_was_read(pass_tokens: int) -> None:
    torch.manual_seed(0)
    lm = CausalLM("bundled", "float32", pass_tokens, Full())
    lm.place(torch.device("cpu"))
    shown, said = ["I want to sell.", "I want to buy.", "Neither of these."], ["Sell it all.", "Buy.", "Wait for another day."]
    examples = [lm.encode(Conversation((Message("user", text), Message("assistant", reply)))) for text, reply in zip(shown, said, strict=True)]
    rows, told = np.array([4, 0, 2]), Comprehension(np.array([[1, 0], [0, 0], [2, 5], [0, 0], [0, 5]]), lm.width)
    sft = SpokenSFT(n_epochs=1, batch_size=3, learning_rate=1e-3, warmup=0.1, weight_decay=0.0, max_grad_norm=1.0, comprehension=told, weight=0.7)
    found = sum(part for part in sft.losses(lm, examples, rows))
    states = lm.states([lm.prompt([Message("user", text)]) for text in shown])
    spoken = sum(float(part.detach()) for part in lm.losses(examples)) / sum(example.weights.sum() for example in examples)
    assert float(found.detach()) == pytest.approx(spoken + 0.7 * float(told(states, torch.as_tensor(rows)).detach()), rel=1e-5)
    assert {*sft.beside()} == {*told.parameters()}
