"""Graders that compare text: `string_check` and `text_similarity`.

The published description names the metrics and leaves their variants open; these are ours, each between 0 and 1:

    fuzzy_match   rapidfuzz `WRatio` / 100 after `default_process` (case and punctuation dropped), as the published twin in Python has it
    bleu          sentence BLEU of orders 1 to 4 (Papineni et al., 2002) with the smoothing of NIST's mteval (nltk's method 3), weights spread
                  evenly over the orders that a text shorter than four tokens has
    gleu          Google's GLEU of orders 1 to 4 (Wu et al., 2016)
    meteor        METEOR (Banerjee and Lavie, 2005), exact words and Porter stems; without its synonyms, which need WordNet's files
    rouge_1..5, rouge_l   F measure of rouge-score, without stemming
    cosine        of embeddings, at least 0; needs a model that embeds

Tokens of bleu, gleu and meteor are those of the Penn Treebank's rules; meteor lowers the case.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator

from framework.errors import ConfigError, MissingExtraError
from framework.lm.endpoint import NoAnswerError
from framework.rewards.graders.grading import GradeError, Grader, Means
from framework.rewards.graders.templates import check, render

Template = Annotated[str, AfterValidator(check)]
_PACKAGES = {"fuzzy_match": "rapidfuzz", "bleu": "nltk", "gleu": "nltk", "meteor": "nltk"}


class StringCheck(Grader):
    """1 if a text stands to another as the operation says, else 0: equal, not equal, containing it, containing it whatever the case."""

    type: Literal["string_check"]
    input: Template
    reference: Template
    operation: Literal["eq", "ne", "like", "ilike"]

    def grade(self, sample: Mapping[str, Any], item: Mapping[str, Any], means: Means) -> float:
        """See `Grader`."""
        given, wanted = render(self.input, sample, item), render(self.reference, sample, item)
        holds = {"eq": given == wanted, "ne": given != wanted, "like": wanted in given, "ilike": wanted.casefold() in given.casefold()}
        return float(holds[self.operation])


class TextSimilarity(Grader):
    """How alike two texts are, between 0 and 1; see the head of this file."""

    type: Literal["text_similarity"]
    input: Template
    reference: Template
    evaluation_metric: Literal["fuzzy_match", "bleu", "gleu", "meteor", "cosine", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"]
    pass_threshold: float | None = None  # of evaluations; the grade is the similarity itself

    @property
    def asks(self) -> bool:
        """See `Grader`."""
        return self.evaluation_metric == "cosine"

    def require(self, means: Means) -> None:
        """See `Grader`."""
        if self.asks:
            if means.embed is None:
                raise ConfigError("grader.evaluation_metric", "cosine needs a model that embeds texts; give reward.embedding_model, or choose another metric")
            return
        package = _PACKAGES.get(self.evaluation_metric, "rouge_score")
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"package {package!r}", "graders")

    def grade(self, sample: Mapping[str, Any], item: Mapping[str, Any], means: Means) -> float:
        """See `Grader`."""
        given, wanted = render(self.input, sample, item), render(self.reference, sample, item)
        if self.asks:
            return _cosine(given, wanted, means)
        return similarity(self.evaluation_metric, given, wanted)


def similarity(metric: str, given: str, wanted: str) -> float:
    """Likeness of a text to a reference by any metric but the cosine."""
    if metric == "fuzzy_match":
        from rapidfuzz import fuzz, utils  # an extra

        return fuzz.WRatio(given, wanted, processor=utils.default_process) / 100
    if metric.startswith("rouge"):
        kind = "rougeL" if metric == "rouge_l" else metric.replace("_", "")
        return float(_rouge(kind).score(wanted, given)[kind].fmeasure)
    return _of_tokens(metric, given, wanted)


def _of_tokens(metric: str, given: str, wanted: str) -> float:
    from nltk.tokenize import NLTKWordTokenizer  # an extra
    from nltk.translate import bleu_score, gleu_score, meteor_score

    said, reference = (NLTKWordTokenizer().tokenize(text) for text in (given, wanted))
    if not said or not reference:
        return float(said == reference)
    if metric == "bleu":
        return float(bleu_score.sentence_bleu([reference], said, smoothing_function=bleu_score.SmoothingFunction().method3, auto_reweigh=True))
    if metric == "gleu":
        return float(gleu_score.sentence_gleu([reference], said))
    return float(meteor_score.single_meteor_score(reference, said, wordnet=_NoSynonyms()))


class _NoSynonyms:
    """In the place of WordNet."""

    def synsets(self, word: str) -> Sequence[Any]:
        """None of any word."""
        return ()


@cache
def _rouge(kind: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # an extra

    return RougeScorer([kind], use_stemmer=False)


def _cosine(given: str, wanted: str, means: Means) -> float:
    assert means.embed is not None
    if not given or not wanted:  # which endpoints refuse to embed
        return float(given == wanted)
    try:
        one, other = np.asarray(means.embed([given, wanted]), dtype=np.float64)
    except NoAnswerError as error:
        raise GradeError("other_error", str(error)) from error
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return max(0.0, float(one @ other) / length) if length else 0.0
