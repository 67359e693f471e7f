"""Questions to shops whose policies differ, so that each must be read; some of what is asked no policy says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domains.customer_service.faq.facts import KINDS, TOPICS, admits_ignorance, check, facts_in
from framework.config import Fraction, NonNegativeCount
from framework.datasets.controls import closest_line
from framework.datasets.generated import GeneratedSource, Sizes, one
from framework.statistics import bootstrap
from framework.types import Conversation, Estimate, Message
from framework.worlds.wordings import bank_of, load_bank

_WORDINGS = Path(__file__).parent / "wordings"
_LINES = (4, 6)  # of a policy, at least and at most


@dataclass(frozen=True)
class Shares:
    """How questions are mixed; what is left asks for one fact that the policy states."""

    two: Fraction  # two facts
    unknown: Fraction  # something that the policy does not say
    half: Fraction  # a fact, and something that the policy does not say


class Faq(GeneratedSource):
    """A shop's policy as the system message, a customer's question, and the answer that the policy gives.

    Args:
        sizes: rows of each split; the test split has other wordings of policies and questions, other shops and other goods.
        seed: of what is written.
        shares: how questions are mixed.
    """

    name = "support FAQ"

    def __init__(self, sizes: Sizes, seed: NonNegativeCount, shares: Shares) -> None:
        super().__init__(sizes, seed)
        self._kinds = (shares.two, shares.unknown, shares.half, 1 - shares.two - shares.unknown - shares.half)
        if self._kinds[-1] < 0:
            raise ValueError("shares: two, unknown and half must come to 1 at most")
        self._answers = load_bank(_WORDINGS / "answers.yaml")
        check(self._answers)

    def write(self, split: str, rng: np.random.Generator) -> Iterator[Conversation]:
        """Rows whose fields are `facts` that the answer must state, and whether it must say that something is `unknown`."""
        bank, topics = bank_of(_WORDINGS, split), list(TOPICS)
        while True:
            known, missing = self._topics(rng)
            lines = int(rng.integers(_LINES[0], _LINES[1] + 1)) - len(known)
            # What could be mistaken for the answer stands in the policy more often than not.
            others = [topic for topic in topics if topic not in (*known, *missing)]
            alike = np.array([3.0 if KINDS[topic] in [KINDS[asked] for asked in (*known, *missing)] else 1.0 for topic in others])
            shown = rng.permutation([*known, *rng.choice(others, lines, replace=False, p=alike / alike.sum())])
            facts = {topic: TOPICS[topic][0].format(one(TOPICS[topic][1], rng)) for topic in map(str, shown)}
            names = {name: one(bank[name]["plain"], rng) for name in ("shop", "goods", "opener", "joiner")}
            policy = "\n".join(f"- {one(bank[topic]['policy'], rng).format(value=fact)}" for topic, fact in facts.items())
            asked = rng.permutation([*known, *missing])
            question = f" {names['joiner']} ".join(one(bank[topic]["ask"], rng) for topic in asked)
            said = " ".join(self._answer(topic, facts.get(topic), rng) for topic in asked)
            opener = f"{names['opener']} " if rng.random() < 0.5 else ""
            yield Conversation(
                (
                    Message("system", f"Answer only from the policy of {names['shop']}.\n{policy}"),
                    Message("user", (opener + question).format(goods=names["goods"])),
                    Message("assistant", said),
                ),
                fields={"facts": "; ".join(facts[topic] for topic in known), "unknown": "yes" if missing else "no"},
            )

    def scores(self, answers: Sequence[str], asked: Sequence[Conversation]) -> Mapping[str, Estimate]:
        """`answered`: every fact that was asked for and no other, and not knowing admitted where it is due and only there.

        `fact_f1`: F1 of the facts stated; 1 where none is due and none is stated. `consistent`: none stated that was not asked
        for. `abstained`: of questions that the policy does not settle, the share in which that is said.
        """
        rows = []
        for answer, row in zip(answers, asked, strict=True):
            due, stated, unknown = facts_in(row.fields["facts"]), facts_in(answer), row.fields["unknown"] == "yes"
            admitted = admits_ignorance(answer)
            f1 = 2 * len(due & stated) / (len(due) + len(stated)) if due or stated else 1.0
            rows.append((due == stated and admitted == unknown, f1, stated <= due, admitted if unknown else np.nan))
        table = np.array(rows, float)
        estimates = {name: bootstrap(table[:, number]) for number, name in enumerate(("answered", "fact_f1", "consistent"))}
        unsettled = table[~np.isnan(table[:, 3]), 3]
        return {**estimates, "abstained": bootstrap(unsettled)} if len(unsettled) else estimates

    def baselines(self, split: str) -> Mapping[str, Sequence[str]]:
        """The controls, and `closest_line`: the line of the policy that shares most with the question."""
        rows = self.conversations(split)
        return {**super().baselines(split), "closest_line": closest_line(self.conversations("train"), rows)}

    def _topics(self, rng: np.random.Generator) -> tuple[list[str], list[str]]:
        """What is asked: settled by the policy, and not. Two topics asked at once are of two kinds, so a fact says which it is of."""
        first, second = (str(topic) for topic in rng.choice(list(TOPICS), 2, replace=False))
        while KINDS[first] == KINDS[second]:
            second = one(list(TOPICS), rng)
        choices: Sequence[tuple[list[str], list[str]]] = (([first, second], []), ([], [first]), ([first], [second]), ([first], []))
        return choices[int(rng.choice(4, p=self._kinds))]

    def _answer(self, topic: str, fact: str | None, rng: np.random.Generator) -> str:
        if fact is not None:
            return one(self._answers[topic]["fact"], rng).format(value=fact)
        return one(self._answers["unknown"]["plain"], rng).format(about=one(self._answers[topic]["about"], rng))
