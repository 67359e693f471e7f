"""Sentences of product reviews, answered with how they feel on a scale, judged by twenty people.

Data: 3,708 sentences of 309 Amazon reviews (Hu & Liu, KDD 2004), rated from -4 to 4 by 20 people each for VADER (Hutto & Gilbert,
ICWSM 2014). They come with the source distribution of `vaderSentiment` 2.5 (MIT licence), not with what pip installs of it, and are
read from there at run time.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from framework.config import NonNegativeCount
from framework.data_packages import source_distribution
from framework.datasets import SPLITS
from framework.datasets.controls import controls, ridge
from framework.errors import DataError
from framework.interfaces import DataSource
from framework.statistics import bootstrap, correlation
from framework.types import Conversation, Estimate, Message

_VERSION, _INNER = "2.5", "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
_TEXTS, _RATINGS = (f"hutto_ICWSM_2014/amazonReviewSnippets_{name}.txt" for name in ("GroundTruth", "anonDataRatings"))
_SHARES = (0.7, 0.1)  # of the reviews, for training and validation
_END = 4.0  # of the scale, both ways
_NUMBER = re.compile(r"[-\u2212]?\d+(?:\.\d+)?")


class Sentiment(DataSource):
    """A sentence of a review as the prompt, its mean rating with one decimal as the answer.

    One of the twenty raters of each sentence, drawn by chance, is left out of the mean, to show how well a person does. No review is in
    two splits.

    Args:
        folder: where the source distribution lies; null: `share/touchstone` in the Python environment (see `source_distribution`).
        seed: of the cut into splits, and of the raters left out.
    """

    name = "sentiment"

    def __init__(self, folder: str | None, seed: NonNegativeCount) -> None:
        self.folder, self.seed = folder, seed
        self._rows: dict[str, list[Conversation]] = {}

    def conversations(self, split: str) -> Sequence[Conversation]:
        """Rows of a split, whose field `one_rater` is what the rater left out said.

        Raises:
            DataError: the source distribution is missing or damaged; says how to get it.
        """
        if not self._rows:
            self._rows = self._cut()
        return self._rows[split]

    def scores(self, answers: Sequence[str], asked: Sequence[Conversation]) -> Mapping[str, Estimate]:
        """`pearson`: correlation with the mean rating, where what is no rating counts as 0.

        `nearness`: 1 minus the mean absolute error over the width of the scale, which is 8. `understood`: answers that are a number on
        the scale.
        """
        true, said = np.array([float(row.completion) for row in asked]), np.array([rating(answer) for answer in answers])
        readable = ~np.isnan(said)
        error = np.where(readable, np.abs(said - true), 2 * _END)
        return {
            "pearson": correlation(np.where(readable, said, 0.0), true),
            "nearness": bootstrap(1 - error / (2 * _END)),
            "understood": bootstrap(readable),
        }

    def worth(self, answer: str, row: Conversation) -> float:
        """See `DataSource`: `nearness`, since one answer alone has no correlation with anything."""
        return self.scores([answer], [row])["nearness"].mean

    def baselines(self, split: str) -> Mapping[str, Sequence[str]]:
        """The controls, and `ridge`: regression on TF-IDF; `one_rater`: a person, which is about as well as can be done.

        `vader`: the rules that the data were collected to test, where they are installed.
        """
        train, rows = self.conversations("train"), self.conversations(split)
        found = {
            **controls(train, rows),
            "ridge": [_written(number) for number in ridge(train, [float(row.completion) for row in train], rows)],
            "one_rater": [row.fields["one_rater"] for row in rows],
        }
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ImportError:
            return found
        rules = SentimentIntensityAnalyzer()
        return {**found, "vader": [_written(_END * rules.polarity_scores(row.prompt[-1].content)["compound"]) for row in rows]}

    def _cut(self) -> dict[str, list[Conversation]]:
        rng = np.random.default_rng(self.seed)
        sentences = list(self.sentences())
        reviews = rng.permutation(sorted({review for review, _, _ in sentences}))
        bounds = (np.cumsum(_SHARES) * len(reviews)).astype(int)
        split_of = {str(review): split for split, part in zip(SPLITS, np.split(reviews, bounds), strict=True) for review in part}
        seen: set[str] = set()
        rows: dict[str, list[Conversation]] = {split: [] for split in SPLITS}
        for review, text, ratings in sorted(sentences, key=lambda sentence: SPLITS.index(split_of[sentence[0]])):
            left_out = int(rng.integers(len(ratings)))
            if text not in seen:  # a few sentences stand in several reviews
                seen.add(text)
                mean = (sum(ratings) - ratings[left_out]) / (len(ratings) - 1)
                rows[split_of[review]].append(_row(text, mean, ratings[left_out]))
        return rows

    def sentences(self) -> Iterator[tuple[str, str, list[float]]]:
        """Review, text and the twenty ratings of each sentence.

        Raises:
            DataError: see `conversations`.
        """
        path = source_distribution("vaderSentiment", _VERSION, self.folder)
        try:
            with tarfile.open(path) as outer, tarfile.open(fileobj=outer.extractfile(_INNER)) as inner:
                texts, ratings = (inner.extractfile(name).read().decode("utf-8-sig").splitlines() for name in (_TEXTS, _RATINGS))  # type: ignore[union-attr]
        except (tarfile.TarError, KeyError, EOFError, OSError) as error:
            raise DataError(f"{path}: cannot be read as the source distribution of vaderSentiment {_VERSION} ({error}); download it again") from error
        rated = dict(line.split("\t")[::3] for line in ratings if line.strip())  # columns: number, mean, deviation, ratings
        for line in texts:
            number, _, text = line.split("\t")
            yield number.split("_")[0], " ".join(text.split()), json.loads(rated[number])


def rating(answer: str) -> float:
    """The first number in an answer, if it is on the scale; otherwise not a number."""
    found = _NUMBER.search(answer)
    number = float(found[0].replace("\u2212", "-")) if found else np.nan
    return number if abs(number) <= _END else np.nan


def _row(text: str, mean: float, one_rater: float) -> Conversation:
    task = "How does this sentence of a review feel, from -4.0 (very bad) to 4.0 (very good)?"
    return Conversation((Message("system", task), Message("user", text), Message("assistant", _written(mean))), fields={"one_rater": _written(one_rater)})


def _written(number: float) -> str:
    return f"{round(min(max(number, -_END), _END), 1) + 0.0:.1f}"  # + 0.0 turns -0.0 into 0.0
