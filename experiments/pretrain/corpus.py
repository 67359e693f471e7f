"""What the small language model reads in training: what is said in the worlds, questions about it, and plain conversation.

Every world speaks with its training wordings alone; those of its test split are in no text here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from experiments.pretrain.templates import dialogues, exchange, system, talk
from framework.config import NonNegative, build, config_folders, load_domain, to_dict
from framework.interfaces import DataSource, Domain
from framework.rollout import situation
from framework.types import Conversation, Grounds, Message
from framework.worlds.free_text import sentences

Document = Conversation | str  # a dialogue, or plain text
SPLIT = "train"
_WANDER, _KEEP = 0.3, 0.4  # of demonstrations: acts at random, and the share that is kept of an episode's situations
_MOST_ACTS = 8  # before a text is asked about


@dataclass(frozen=True)
class Shares:
    """How much of the text, in characters, each kind makes; they are weighed against each other."""

    demonstrations: NonNegative  # an observation, and what the optimal policy says
    episodes: NonNegative  # the same, turn by turn
    observations: NonNegative  # plain text
    reading: NonNegative  # questions about an observation
    data: NonNegative  # training rows of ready-made sources
    talk: NonNegative  # plain conversation

    def __post_init__(self) -> None:
        if not self.demonstrations + self.episodes + self.observations + self.reading + self.talk:
            raise ValueError("shares: a kind besides data must have one")


def worlds() -> list[Domain]:
    """Every world of the menu that can be acted on in words."""
    files = [path for folder in config_folders() for path in sorted((folder / "domain").glob("*.yaml"))]
    found = [load_domain(path.stem, environment) for path in files for environment in to_dict(cast(DictConfig, OmegaConf.load(path)))["worlds"]]
    return [domain for domain in found if domain.phrases is not None]


def corpus(worlds: Sequence[Domain], sources: Sequence[DataSource], shares: Shares, characters: int, seed: int) -> list[Document]:
    """Documents of every kind, shuffled.

    Args:
        worlds: see `worlds`.
        sources: of ready-made conversations.
        shares: see `Shares`.
        characters: of all documents together, about.
        seed: of everything.
    """
    rng = random.Random(seed)
    kinds: list[tuple[float, list[Iterator[Document]]]] = [
        (shares.demonstrations, [demonstrations(world, rng.randrange(2**31)) for world in worlds]),
        (shares.episodes, [episodes(world, rng.randrange(2**31)) for world in worlds]),
        (shares.observations, [observations(world, rng.randrange(2**31)) for world in worlds]),
        (shares.reading, [reading(world, rng.randrange(2**31)) for world in worlds]),
        (shares.data, [rows(source) for source in sources]),
        (shares.talk, [conversation(worlds, rng.randrange(2**31))]),
    ]
    whole = sum(share for share, streams in kinds if streams)
    found = [document for share, streams in kinds for stream in streams for document in _take(stream, characters * share / whole / len(streams))]
    rng.shuffle(found)
    return found


def demonstrations(domain: Domain, seed: int) -> Iterator[Document]:
    """Situations on the optimal policy's way and off it, and what it says."""
    rng = random.Random(seed)
    for pair in sentences(domain, SPLIT, seed, _WANDER):
        if rng.random() < _KEEP:  # one episode's situations are much alike
            yield Conversation([*system(rng), Message("user", pair["prompt"]), Message("assistant", pair["completion"])])


def episodes(domain: Domain, seed: int) -> Iterator[Document]:
    """Whole episodes of the optimal policy: the user's turns are what is new in the observation."""
    rng, before, messages = random.Random(seed), list[str](), list[Message]()
    for pair in sentences(domain, SPLIT, seed):
        now = pair["prompt"].split("\n")
        if before and (now[0] != before[0] or len(now) <= len(before)):  # another episode
            yield Conversation([*system(rng), *messages])
            before, messages = [], []
        fresh = [line for line in now if line not in before]
        messages += [Message("user", "\n".join(fresh)), Message("assistant", pair["completion"])]
        before = now


def observations(domain: Domain, seed: int) -> Iterator[Document]:
    """What random play shows, as plain text."""
    return (text for text, _ in _situations(domain, seed))


def reading(domain: Domain, seed: int) -> Iterator[Document]:
    """Questions about an observation that the observation answers, or a part of it."""
    rng, labels, bank = random.Random(seed), set[str](), talk()
    for text, grounds in _situations(domain, seed):
        lines = text.split("\n")
        if rng.random() < 0.5:
            first = rng.randrange(len(lines))
            lines, grounds = lines[first : first + rng.randint(1, 5)], Grounds()
        slots, kinds = _questions(lines, grounds, sorted(labels), rng)
        labels |= _labelled(lines).keys()
        asked = []
        for number, kind in enumerate(rng.sample(kinds, min(len(kinds), rng.choice((1, 1, 2, 3))))):
            question, answer = exchange(rng.choice(bank["reading"][kind]), {**bank["slots"], **slots}, rng)
            if number == 0:
                question = Message("user", rng.choice(bank["frames"]).replace("<question>", question.content).replace("<text>", "\n".join(lines)))
            asked += [question, answer]
        yield Conversation([*system(rng), *asked])


def conversation(worlds: Sequence[Domain], seed: int) -> Iterator[Document]:
    """Plain dialogues, in which what people repeat and quote is what is said in the worlds."""
    rng = random.Random(seed)
    said = {words for world in worlds for _, (text, _) in zip(range(400), _situations(world, seed), strict=False) for _, words in _split(text.split("\n"))}
    heard = sorted(words for words in said if len(words) < 80)
    half = len(heard) // 2
    rng.shuffle(heard)
    return dialogues({**talk()["slots"], "line": heard[:half], "other": heard[half:]}, rng)


def rows(source: DataSource) -> Iterator[Document]:
    """The training rows of a ready-made source."""
    return iter(source.conversations(SPLIT))


def source(name: str) -> DataSource:
    """A source of the menu."""
    path = next(path for folder in config_folders() if (path := folder / "data" / f"{name}.yaml").exists())
    built: DataSource = build(cast(DictConfig, OmegaConf.load(path)), f"data={name}")
    return built


def _take(stream: Iterator[Document], characters: float) -> Iterator[Document]:
    for document in stream:
        if characters <= 0:
            return
        yield document
        characters -= len(document) if isinstance(document, str) else sum(len(message.content) for message in document.messages)


def _situations(domain: Domain, seed: int) -> Iterator[tuple[str, Grounds]]:
    """Endless situations of random play, and what one may say of them."""
    world, rng = domain.make(SPLIT), random.Random(seed)
    while True:
        text = situation(world, rng.randrange(2**27), _MOST_ACTS)
        yield text, world.grounds()


def _split(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Label and utterance of every line that has both."""
    parted = (line.partition(": ") for line in lines)
    return [(label, words) for label, _, words in parted if words]


def _labelled(lines: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for label, words in _split(lines):
        found.setdefault(label, []).append(words)
    return found


def _questions(lines: Sequence[str], grounds: Grounds, labels: Sequence[str], rng: random.Random) -> tuple[dict[str, list[Any]], list[str]]:
    """What can be asked about some lines: slots, and the kinds of question that they serve."""
    labelled, slots, kinds = _labelled(lines), {"first": [lines[0]], "last": [lines[-1]]}, ["first", "last"]
    if labelled:
        label = rng.choice(list(labelled))
        slots |= {"label": [label], "utterance": [" ".join(labelled[label])]}
        kinds += ["quote", "quote", "quote", "present"]
    if absent := [label for label in labels if label not in labelled]:
        slots["absent"] = absent
        kinds.append("missing")
    if twice := [words for words in labelled.values() if len(words) == 2]:
        first, second = rng.choice(twice)
        slots |= {"wording": [first], "again": [second]}
        kinds.append("other_words")
    if grounds.true:
        slots["holds"] = list(grounds.true)
        kinds += ["holds", "gathered"]
    if grounds.false:
        slots["fails"] = list(grounds.false)
        kinds.append("fails")
    return slots, kinds
