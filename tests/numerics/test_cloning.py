"""The warm start's targets and lessons against hand computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from framework.algorithms.cloning import Lessons
from framework.config import CONF, build


def test_lessons_are_the_mean_cross_entropy_of_each_component() -> None:
    states = np.array([[0, -1, 7], [3, -1, 5], [0, 2, 5]])  # two values, two values, two values
    lessons, meaning = Lessons(states, torch.zeros(1, 4)), torch.randn(2, 4)
    scores = lessons.tell(meaning).detach().numpy()
    rows = [1, 2]
    told = [(1, 0, 0), (0, 1, 0)]  # numbers of the values among the sorted ones: 0 < 3, -1 < 2, 5 < 7
    expected = []
    for row, classes in enumerate(told):
        for part, right in zip(np.split(scores[row], 3), classes, strict=True):
            expected.append(np.log(np.exp(part).sum()) - part[right])
    assert float(lessons(meaning, torch.tensor(rows))) == pytest.approx(np.mean(expected), abs=1e-6)


def test_targets_are_softmax_of_action_values_in_units_of_the_mean_gap() -> None:
    cloning = build({**OmegaConf.load(CONF / "warm_start" / "cloning.yaml"), "temperature": 0.5}, "warm_start")
    values = np.array([[1.0, 3.0, -np.inf], [0.0, 0.0, 3.0]])
    gap = ((3 - 2) + (3 - 1)) / 2
    expected = np.exp(values / (0.5 * gap))
    np.testing.assert_allclose(cloning._targets(values), expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)
