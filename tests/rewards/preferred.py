"""A small made-up world with a known reward, and preferences in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from framework.interfaces import Learning
from framework.lm.tfidf import TfidfEncoder
from framework.preferences.fitted_reward import Fitting
from framework.preferences.turn_network import Shape
from framework.types import Conversation, Message, Preference

WORTH = {"it rains": -1.0, "the sun shines": 1.5, "there is wind": 0.5, "the sea is calm": 1.0, "the mast is broken": -2.0}
ACTS = {"sail": 1.0, "mend_the_mast": -0.5, "stay": 0.0}
FITTING = Fitting(epochs=20, batch_size=64, learning_rate=3e-3, weight_decay=0.1, centring=0.01, margin=0.0)
SMALL = Shape("mlp", 16, 0.0)


def worth(observation: str, act: str) -> float:
    """What a turn is truly worth: sailing by the weather, mending where it is needed, staying nothing."""
    return ACTS[act] * sum(WORTH[line] for line in observation.split("\n"))


def sight(rng: np.random.Generator) -> str:
    return "\n".join(rng.choice(list(WORTH), size=rng.integers(1, 4), replace=False))


def trajectory(rng: np.random.Generator, first: str) -> tuple[list[Message], float]:
    """One to three turns, and their worth."""
    messages, total, seen = list[Message](), 0.0, first
    for _ in range(rng.integers(1, 4)):
        act = str(rng.choice(list(ACTS)))
        messages += [Message("user", seen), Message("assistant", act)]
        total, seen = total + worth(seen, act), sight(rng)
    return messages, total


def preferences(count: int, seed: int) -> list[Preference]:
    """Pairs labelled by Bradley and Terry's chance."""
    rng, made = np.random.default_rng(seed), list[Preference]()
    for _ in range(count):
        first = sight(rng)
        (one, its), (other, others) = trajectory(rng, first), trajectory(rng, first)
        chance = float(1 / (1 + np.exp(others - its)))
        if rng.random() > chance:
            one, other, its, others, chance = other, one, others, its, 1 - chance
        made.append(Preference(Conversation(one), Conversation(other), 0.5 if its == others else 1.0, chance, its - others))
    return made


def write(path: Path, pairs: list[Preference]) -> None:
    """As a file of preferences has them."""

    def said(messages: list[Message]) -> list[dict[str, str]]:
        return [{"role": message.role, "content": message.content} for message in messages]

    with path.open("w", encoding="utf-8") as file:
        for pair in pairs:
            chosen, rejected = said(list(pair.chosen.messages)), said(list(pair.rejected.messages))
            row = {"prompt": chosen[:1], "chosen": chosen[1:], "rejected": rejected[1:]}
            file.write(json.dumps({**row, "label": pair.label, "probability": pair.probability, "margin": pair.margin}) + "\n")


def reader() -> TfidfEncoder:
    return TfidfEncoder(24)


def learning(seed: int = 0) -> Learning:
    return Learning(lambda steps, metrics: True, seed, torch.device("cpu"))
