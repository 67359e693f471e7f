"""Worlds acted on in words: a phrasebook understands what is said, and a rubric looks at how the reason given fits the facts.

A phrasebook is a YAML file of a world:

    acts:
      ask_horizon:
        cues: [^horizon, how many/long, "when + need it"]   # understood as this act
        say: [How long can the money stay invested?]        # how a demonstration puts it
    because: ["{say} That fits, as you told me: {facts}."]  # how a demonstration gives reasons for an act that ends an episode
    never: [guarantee]                                      # claims that nobody may make

Understanding is deterministic, blind to case, punctuation and articles; `%` is the word percent. A cue is words in a row (`him/her`:
either word), `^` before them if the text must open with them, or several such joined by `+`, all of which must occur; an act's own name
is a cue too. The act with the longest matching cue is meant; where two acts match equally, or none does, nothing was understood: the
turn is lost and costs `format`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import yaml

from framework.interfaces import Domain, Speech, World
from framework.seeding import episode_seed
from framework.types import Grounds
from framework.worlds.environments import CHARSET
from framework.worlds.wordings import Bank

MAX_RUBRIC = 0.2  # of what lies between random acts and the optimum
_MAX_WORDS = 80
_ARTICLES = {"a", "an", "the"}
_WORD, _APOSTROPHE, _PERCENT = re.compile(r"[a-z0-9]+"), re.compile("['\u2019]"), re.compile(r"%|\bper cent\b")


@dataclass(frozen=True)
class Phrasebook(Speech):
    """How acts are said and understood.

    Attributes:
        acts: names of the world's acts, in order.
        cues: of each act; each is one or more runs of words that must all occur.
        say: of each act, sentences; the first is the one that is taught.
        because: templates of `{say}` and `{facts}`.
        never: forbidden claims, as runs of words.
    """

    acts: tuple[str, ...]
    cues: tuple[tuple[tuple[str, ...], ...], ...]
    say: tuple[tuple[str, ...], ...]
    because: tuple[str, ...]
    never: tuple[str, ...]

    def understand(self, text: str) -> int | None:
        """See `Speech`."""
        heard = "^" + _words(text)
        longest = [max((sum(map(len, cue)) for cue in cues if all(map(heard.__contains__, cue))), default=0) for cues in self.cues]
        best = max(longest)
        return longest.index(best) if best and longest.count(best) == 1 else None

    def answer(self, shown: str, act: int, rng: np.random.Generator) -> str:
        """See `Speech`; always in the same words, and without reasons: a turn is paid for what is done, and which of many wordings is chance to a learner."""
        return self.say[act][0]

    def express(self, act: int, grounds: Grounds | None, rng: np.random.Generator) -> str:
        """The act in words; with two reasons, where there are `grounds` for any."""
        said = str(rng.choice(self.say[act]))
        if grounds is None or not grounds.true or not self.because:
            return said
        facts = rng.permutation(list(grounds.true))[:2]
        return str(rng.choice(self.because)).format(say=said, facts=" and ".join(map(str, facts)))

    def rubric(self, text: str, grounds: Grounds) -> dict[str, bool]:
        """What is looked at when an episode is ended in words: checks that hold or do not."""
        heard = _words(text)
        named = [phrase for phrase in map(_words, grounds.true) if phrase in heard]
        wrong = [phrase for phrase in map(_words, grounds.false) if phrase in heard and not any(phrase in true for true in named)]
        return {
            "reason": bool(named) or not grounds.true,
            "no_contradiction": not wrong,
            "no_forbidden_claim": not any(claim in heard for claim in self.never),
            "brief": len(text.split()) <= _MAX_WORDS,
        }


def speech_of(domain: Domain) -> Speech:
    """How acts are said and understood in a domain.

    Raises:
        ValueError: they are not.
    """
    return phrasebook_of(domain) if domain.speech is None else domain.speech


def phrasebook_of(domain: Domain) -> Phrasebook:
    """A domain's phrasebook.

    Raises:
        ValueError: it has none.
    """
    if domain.phrases is None:
        raise ValueError(f"{domain.name}/{domain.environment} has no phrasebook, so nothing said in it is understood; act by name (policy=likelihood, head)")
    return load_phrasebook(domain.phrases, tuple(domain.acts))


@cache
def load_phrasebook(path: Path, acts: tuple[str, ...]) -> Phrasebook:
    """Reads and checks a phrasebook.

    Raises:
        ValueError: an act without entry or sentences, an entry without act, a sentence that is not understood as its act, or a
            template of reasons without `{say}` and `{facts}`.
    """
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    if set(raw["acts"]) != set(acts):
        raise ValueError(f"{path}: acts differ from the world's in {', '.join(sorted(set(raw['acts']) ^ set(acts)))}")
    cues = tuple(tuple(cue for written in (*raw["acts"][act].get("cues", ()), act.replace("_", " ")) for cue in _cues(written)) for act in acts)
    say = tuple(tuple(raw["acts"][act].get("say", ())) for act in acts)
    book = Phrasebook(acts, cues, say, tuple(raw.get("because", ())), tuple(_words(claim) for claim in raw.get("never", ())))
    if silent := [act for act, sentences in zip(acts, say, strict=True) if not sentences]:
        raise ValueError(f"{path}: nothing to say for {', '.join(silent)}")
    heard = [(act, sentence, book.understand(sentence)) for act, sentences in enumerate(say) for sentence in sentences]
    if wrong := [f"{acts[act]}: {sentence!r} as {'nothing' if meant is None else acts[meant]}" for act, sentence, meant in heard if meant != act]:
        raise ValueError(f"{path}: not understood as meant: {'; '.join(wrong)}")
    for template in book.because:
        if set(re.findall("{.*?}", template)) != {"{say}", "{facts}"}:
            raise ValueError(f"{path}: because: {template!r} needs {{say}} and {{facts}}")
    return book


def grounds_of(facts: Bank, heard: Mapping[str, str]) -> Grounds:
    """Grounds for what was heard, topic to value: the phrases of those values hold, those of a topic's other values do not."""
    true = [phrase for topic, value in heard.items() for phrase in facts[topic][value]]
    false = [phrase for topic, value in heard.items() for other, phrases in facts[topic].items() if other != value for phrase in phrases]
    return Grounds(true, false)


class FreeTextWorld(gymnasium.Env[str, str]):
    """A world whose acts are text.

    Args:
        world: acts by number underneath; its costs, clock and `info` are kept.
        book: understands.
        rubric: reward, in the world's unit, of a reply that passes every check; half of the checks earn half.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"]}

    def __init__(self, world: World, book: Phrasebook, rubric: float) -> None:
        self.world, self.book, self.weight = world, book, rubric
        self.observation_space = world.observation_space
        self.action_space = gymnasium.spaces.Text(1_000, min_length=0, charset=CHARSET)
        self.render_mode = "ansi"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """See `gymnasium.Env`."""
        return self.world.reset(seed=seed, options=options)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Does what the text is understood to mean; `info["act"]` names it, and `reward_terms` gains `rubric` at the end."""
        act, grounds = self.book.understand(action), self.world.grounds()
        text, reward, terminated, truncated, info = self.world.idle() if act is None else self.world.step(act)
        info["act"] = None if act is None else self.book.acts[act]
        if terminated:
            checks = self.book.rubric(action, grounds)
            earned = self.weight * sum(checks.values()) / len(checks)
            info["reward_terms"]["rubric"], info["rubric"] = earned, checks
            reward = float(reward) + earned
        return text, float(reward), terminated, truncated, info

    def render(self) -> str:  # type: ignore[override]
        """See `gymnasium.Env`."""
        return str(self.world.render())


def free_text(domain: Domain, split: str, rubric: float = 0.1) -> FreeTextWorld:
    """A domain's world, acted on in words.

    Args:
        domain: with a phrasebook.
        split: of the world.
        rubric: weight of the rubric, as a share of what lies between random acts and the optimum; at most 0.2.

    Raises:
        ValueError: no phrasebook, or too heavy a rubric.
    """
    book = phrasebook_of(domain)
    if not 0 <= rubric <= MAX_RUBRIC:
        raise ValueError(f"rubric must be between 0 and {MAX_RUBRIC}, not {rubric:g}: style must never outbid substance")
    worth = domain.oracle(split).references
    return FreeTextWorld(domain.make(split), book, rubric * (worth["optimum"].value - worth["random"].value))


def sentences(domain: Domain, split: str, seed: int, wander: float = 0.0) -> Iterator[Mapping[str, str]]:
    """Endless `{prompt, completion, values}` of the optimal policy in words, for supervised training.

    `values` is what each act that is allowed is worth, as a JSON object by the names of the acts.

    Args:
        domain: with a phrasebook.
        split: of the world.
        seed: of episodes and words.
        wander: share of acts taken at random, so that situations off the best path are met too; what is said there is still best.
    """
    book = phrasebook_of(domain)
    world, oracle, rng = domain.make(split), domain.oracle(split), np.random.default_rng(seed)
    while True:
        text, info = world.reset(seed=episode_seed(split, int(rng.integers(2**27))))
        ended = False
        while not ended:
            worth = oracle.action_values(np.array([world.information_state()]))[0]
            best = int(worth.argmax())
            other = int(rng.choice(np.flatnonzero(info["action_mask"]))) if rng.random() < wander else best
            values = {book.acts[act]: round(float(worth[act]), 6) for act in np.flatnonzero(info["action_mask"])}
            shown, grounds, here = text, world.grounds(), world.get_state()
            text, _, terminated, truncated, info = world.step(best)
            yield {"prompt": shown, "completion": book.express(best, grounds if terminated else None, rng), "values": json.dumps(values)}
            if other != best:
                world.set_state(here)
                text, _, terminated, truncated, info = world.step(other)
            ended = terminated or truncated


def _words(text: str) -> str:
    """Lower-case words but articles between single spaces, with one at either end, so that `in` finds whole words."""
    plain = _PERCENT.sub(" percent ", _APOSTROPHE.sub("", text.lower()))
    return f" {' '.join(word for word in _WORD.findall(plain) if word not in _ARTICLES)} "


def _cues(written: str) -> Iterator[tuple[str, ...]]:
    """A cue with every choice of the words between which `/` stands."""
    for words in itertools.product(*(word.split("/") for word in written.split())):
        yield tuple("^" * part.strip().startswith("^") + _words(part) for part in " ".join(words).split("+"))
