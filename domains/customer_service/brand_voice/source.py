"""Plain messages of a shop, to be said in the voice of a brand that is named or described."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from domains.customer_service.brand_voice.voice import WORDINGS, Card, Style, cards, say
from framework.config import NonNegativeCount
from framework.datasets.generated import GeneratedSource, Sizes, one
from framework.statistics import bootstrap
from framework.types import Conversation, Estimate, Message
from framework.worlds.wordings import load_bank

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_FACTS = ("order", "amount", "city", "day", "person", "item")


class BrandVoice(GeneratedSource):
    """A brand's name or its card, a plain message, and the message in that voice.

    Args:
        sizes: rows of each split; the test split has other messages, and half of it brands that training never shows, by their cards.
        seed: of what is written.
    """

    name = "brand voice"

    def __init__(self, sizes: Sizes, seed: NonNegativeCount) -> None:
        super().__init__(sizes, seed)

    def write(self, split: str, rng: np.random.Generator) -> Iterator[Conversation]:
        """Rows whose fields are the `brand`, and the `facts` that the answer must keep."""
        bank = {name: group["plain"] for name, group in load_bank(WORDINGS / "messages.yaml").items()}
        messages = bank["test" if split == "test" else "train"]
        known, held_out = ([card for card in cards() if card.held_out == side] for side in (False, True))
        while True:
            pool = held_out if split == "test" and rng.random() < 0.5 else known
            card = pool[int(rng.integers(len(pool)))]
            told = str(card) if card.held_out or rng.random() < 0.5 else f"Voice of {card.name}."
            facts = {name: one(bank[name], rng) for name in ("city", "day", "person", "item")}
            facts |= {"order": f"#{rng.integers(1000, 10000)}", "amount": f"${rng.integers(3, 90)}{one(('', '.50', '.25', '.99'), rng)}"}
            message = one(messages, rng)
            plain = Style(one(("I", "we"), rng), bool(rng.random() < 0.5), one(("American", "British"), rng), {})
            kept = "; ".join(facts[slot] for slot in _FACTS if f"{{{slot}}}" in message)
            said = (Message("system", told), Message("user", say(message, plain, facts)), Message("assistant", _in_voice(message, card, facts, bank, rng)))
            yield Conversation(said, fields={"brand": card.name, "facts": kept})

    def scores(self, answers: Sequence[str], asked: Sequence[Conversation]) -> Mapping[str, Estimate]:
        """`right`: all eight traits of the voice, and every fact kept with no other number.

        `all_traits` and `facts_kept`: the one and the other. `traits`: the share of the eight.
        """
        card_of = {card.name: card for card in cards()}
        rows = []
        for answer, row in zip(answers, asked, strict=True):
            traits, kept = card_of[row.fields["brand"]].traits(answer), _keeps(answer, row.fields["facts"])
            rows.append((all(traits.values()) and kept, all(traits.values()), kept, sum(traits.values()) / len(traits)))
        table = np.array(rows, float)
        return {name: bootstrap(table[:, number]) for number, name in enumerate(("right", "all_traits", "facts_kept", "traits"))}

    def baselines(self, split: str) -> Mapping[str, Sequence[str]]:
        """The controls, and `copy`: the message as it is."""
        return {**super().baselines(split), "copy": [row.prompt[-1].content for row in self.conversations(split)]}


def _in_voice(message: str, card: Card, facts: Mapping[str, str], bank: Mapping[str, Sequence[str]], rng: np.random.Generator) -> str:
    """The message as the brand says it, with as many courtesies as its length asks for."""
    sentences, spare = [say(message, card, facts, opens=not card.greeting.endswith(","))], list(rng.permutation(list(bank["courtesy"])))
    while True:
        body = " ".join(sentences)
        body = body[:-1] + "!" if card.mark == "!" else f"{body} {card.mark}"
        text = " ".join(part for part in (card.greeting, body.strip(), card.sign_off) if part)
        if card.traits(text)["length"] or not spare:
            return text
        sentences.append(say(str(spare.pop()), card, facts))


def _keeps(answer: str, facts: str) -> bool:
    """Whether an answer has every fact, and no number that is not one."""
    return all(re.search(rf"(?<!\w){re.escape(fact)}(?!\w)", answer) for fact in facts.split("; ")) and {*_NUMBER.findall(answer)} <= {*_NUMBER.findall(facts)}
