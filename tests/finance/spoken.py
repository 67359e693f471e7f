"""What holds of both desks when they are acted on in words."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from framework.worlds import free_text as module
from framework.worlds.free_text import Phrasebook, free_text, load_phrasebook, sentences
from framework.worlds.interview import InterviewDomain
from framework.worlds.wordings import Bank

LEAST_SAYINGS, LEAST_TEMPLATES, MIXED = 10, 8, 1_000
MIN_PROMPTS, DEMONSTRATIONS = 5_000, 7_000


def phrasebook(domain: InterviewDomain) -> Phrasebook:
    assert isinstance(domain.phrases, Path)
    return load_phrasebook(domain.phrases, domain.acts)


def phrasebook_is_sound(domain: InterviewDomain, facts: Bank) -> None:
    """Enough is said of each act, nothing forbidden, and no reason is taken for an act, alone or after another."""
    book, rng = phrasebook(domain), np.random.default_rng(0)
    assert all(len(said) == len(set(said)) >= LEAST_SAYINGS for said in book.say)
    assert len(book.because) >= LEAST_TEMPLATES and book.never
    phrases = [phrase for values in facts.values() for said in values.values() for phrase in said]
    assert not any(one != other and one in other for one in phrases for other in phrases)
    assert all(book.understand(phrase) is None for phrase in phrases)
    assert all(book.understand(template.format(say="", facts="")) is None for template in book.because)
    for _ in range(MIXED):
        act = int(rng.integers(len(book.acts)))
        said = str(rng.choice(book.because)).format(say=rng.choice(book.say[act]), facts=" and ".join(rng.choice(phrases, 2, replace=False)))
        assert book.understand(said) == act, said
        assert not any(module._words(claim) in module._words(said) for claim in book.never)


def the_optimum_in_words_is_the_optimum(domain: InterviewDomain, monkeypatch: pytest.MonkeyPatch, episodes: int = 60) -> None:
    """What `sentences` says, heard by a world of words: the same acts, rewards and costs, and a reason that passes every check."""
    seeds: list[int] = []
    monkeypatch.setattr(module, "episode_seed", lambda split, number: seeds.append(number) or number)
    pairs, oracle = sentences(domain, "train", seed=2), domain.oracle("train")
    world, plain = free_text(domain, "train"), domain.make("train")
    for _ in range(episodes):
        pair, ended = next(pairs), False
        shown, _ = world.reset(seed=seeds[-1])
        assert plain.reset(seed=seeds[-1])[0] == shown
        while not ended:
            assert pair["prompt"] == shown
            act = int(oracle.action_values(np.array([plain.information_state()]))[0].argmax())
            shown, reward, ended, truncated, info = world.step(pair["completion"])
            text, paid, _, _, told = plain.step(act)
            assert (shown, info["act"], info["costs"], info["proxy"]) == (text, domain.acts[act], told["costs"], told["proxy"]) and not truncated
            if ended:
                assert info["rubric"] == dict.fromkeys(("reason", "no_contradiction", "no_forbidden_claim", "brief"), True), pair["completion"]
            assert reward == pytest.approx(paid + info["reward_terms"].get("rubric", 0.0))
            if not ended:
                pair = next(pairs)


def gibberish_changes_nothing(domain: InterviewDomain) -> None:
    world = free_text(domain, "train")
    for said in ("", "Lorem ipsum dolor sit amet."):
        shown, _ = world.reset(seed=4)
        before = world.world.information_state()
        text, reward, terminated, truncated, info = world.step(said)
        assert (text, reward, terminated, truncated, info["act"]) == (shown, 0.0, False, False, None)
        assert info["costs"] == {"format": 1.0} and world.world.information_state() == before


def prompts_hardly_repeat(domain: InterviewDomain) -> None:
    prompts = {pair["prompt"] for pair in islice(sentences(domain, "train", seed=0), DEMONSTRATIONS)}
    assert len(prompts) >= MIN_PROMPTS
