"""Answers that need no language model: what any claim for one must beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from framework.types import Conversation


def controls(train: Sequence[Conversation], asked: Sequence[Conversation], characters: bool = False) -> Mapping[str, Sequence[str]]:
    """`nearest`: the completion of the most similar training prompt. `commonest`: the training completion that is given most often.

    Args:
        train: what may be learnt from.
        asked: rows to answer; their completions are not looked at.
        characters: compare runs of two to four letters instead of words and word pairs.
    """
    return {"nearest": nearest(train, asked, characters), "commonest": [Counter(row.completion for row in train).most_common(1)[0][0]] * len(asked)}


def nearest(train: Sequence[Conversation], asked: Sequence[Conversation], characters: bool = False) -> Sequence[str]:
    """For each row the completion of the training prompt nearest in TF-IDF (scikit-learn), by cosine; the first of equals."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import NearestNeighbors

    units = {"analyzer": "char_wb", "ngram_range": (2, 4)} if characters else {"ngram_range": (1, 2)}
    vectoriser = TfidfVectorizer(sublinear_tf=True, **units)
    index = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(vectoriser.fit_transform(map(_text, train)))
    found = index.kneighbors(vectoriser.transform(map(_text, asked)), return_distance=False)
    return [train[number].completion for number in found[:, 0]]


def closest_line(train: Sequence[Conversation], asked: Sequence[Conversation]) -> Sequence[str]:
    """For each row the line of what stands before the last message whose TF-IDF is nearest to that message, with weights from training."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit(map(_text, train))
    shown = ["\n".join(message.content for message in row.prompt[:-1]).splitlines() for row in asked]
    questions = vectoriser.transform([row.prompt[-1].content for row in asked])
    lines = vectoriser.transform([line for lines in shown for line in lines])
    owner = np.repeat(np.arange(len(shown)), [len(lines) for lines in shown])
    alike = np.asarray(lines.multiply(questions[owner]).sum(axis=1)).ravel()
    return [lines[int(alike[owner == number].argmax())] for number, lines in enumerate(shown)]


def ridge(train: Sequence[Conversation], targets: Sequence[float], asked: Sequence[Conversation]) -> Sequence[float]:
    """A number for each row by ridge regression on the TF-IDF of words and word pairs."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    model = Ridge(alpha=1.0).fit(vectoriser.fit_transform(map(_text, train)), targets)
    return [float(number) for number in model.predict(vectoriser.transform(map(_text, asked)))]


def _text(row: Conversation) -> str:
    return "\n".join(message.content for message in row.prompt)
