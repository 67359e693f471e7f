"""Word counts as a reader of lines: the control that any claim for a language model must beat."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from framework.config import Count
from framework.lm.encoder import LineEncoder


class TfidfEncoder(LineEncoder):
    """TF-IDF of words and word pairs (scikit-learn), with the vocabulary of the training lines.

    Args:
        max_features: the most frequent terms that are kept.
    """

    def __init__(self, max_features: Count = 2_000) -> None:
        super().__init__()
        self.max_features = max_features
        self.shape = (1, max_features)
        self._fitted: dict[str, list[float] | list[str]] = {"terms": [], "idf": []}

    def place(self, device: torch.device) -> None:
        """Remembers the device."""
        self.device = device

    def fit(self, lines: Sequence[str]) -> None:
        """Chooses terms and their weights."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectoriser = TfidfVectorizer(ngram_range=(1, 2), max_features=self.max_features, sublinear_tf=True).fit(lines)
        terms = sorted(vectoriser.vocabulary_, key=vectoriser.vocabulary_.__getitem__)
        self._restore({"terms": terms, "idf": vectoriser.idf_.tolist()})

    def tokens(self, lines: Sequence[str]) -> list[bytes]:
        """The text itself."""
        return [line.lower().encode() for line in lines]

    def encode(self, tokens: Sequence[bytes]) -> Tensor:
        """Unit-length vectors, scaled so that a term weighs about as much as a standardised feature."""
        sparse = self._vectoriser.transform([line.decode() for line in tokens])
        features = torch.zeros(len(tokens), *self.shape, device=self.device)
        features[:, 0, : sparse.shape[1]] = torch.as_tensor(sparse.toarray(), dtype=torch.float32)
        return features * self.shape[1] ** 0.5

    def get_extra_state(self) -> Tensor:
        """Vocabulary and weights, as JSON bytes so that safetensors can hold them."""
        return torch.frombuffer(bytearray(json.dumps(self._fitted).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores what `get_extra_state` returned."""
        self._restore(json.loads(bytes(state.cpu().numpy())))

    def _restore(self, fitted: dict[str, list[float] | list[str]]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._fitted = fitted
        self._vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, vocabulary=fitted["terms"])
        self._vectoriser.idf_ = np.asarray(fitted["idf"], float)
