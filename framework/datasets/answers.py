"""How near an answer comes to a reference."""

from __future__ import annotations

import re
import string
from collections import Counter

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, blind to case, punctuation and articles (SQuAD; Rajpurkar et al., 2016)."""
    said, meant = _words(answer), _words(reference)
    if not said or not meant:
        return float(said == meant)
    return 2 * (said & meant).total() / (said.total() + meant.total())


def _words(text: str) -> Counter[str]:
    return Counter(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())
