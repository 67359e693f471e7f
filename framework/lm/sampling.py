"""Drawing tokens: temperature, top-k, top-p, by inverse transform of one uniform number a row.

`torch.multinomial` draws a random number for every entry of the vocabulary; this draws one, and costs a cumulative sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from framework.errors import ConfigError, TrainingError
from framework.types import Sampling


def draw(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Tokens and their log-probabilities, `[B]` each.

    A log-probability is that of softmax(logits / temperature), before top-k and top-p; at temperature 0 that of softmax(logits).

    Args:
        logits: float32 `[B, V]`; -inf where a token may not come.
        uniforms: in [0, 1), `[B]`; temperature 0 ignores them.

    Raises:
        TrainingError: logits that are not numbers.
    """
    if sampling.temperature == 0:
        probabilities, tokens = logits.softmax(-1), logits.argmax(-1)
    else:
        probabilities = (logits / sampling.temperature).softmax(-1)
        cumulative = truncate(probabilities, sampling.top_k, sampling.top_p).cumsum(-1)
        # The first entry above the target has a probability of its own, so no token is drawn that was cut off.
        target = uniforms[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, target, right=True).clamp_(max=logits.shape[-1] - 1)[:, 0]
    logprobs = probabilities.gather(-1, tokens[:, None])[:, 0].log()
    if not logprobs.isfinite().all():
        raise TrainingError("the language model's logits are not finite numbers: its weights are damaged; lower the learning rate and start from a checkpoint")
    return tokens, logprobs


def truncate(probabilities: Tensor, top_k: int, top_p: float) -> Tensor:
    """Probabilities `[B, V]` with 0 for what top-k, then top-p, cut off; the rest as it was.

    Top-k keeps the k likeliest (0: all), top-p the fewest likeliest whose share of what is left is at least p (Holtzman et al.,
    2020). Tokens as likely as the last one kept are kept too.
    """
    vocabulary = probabilities.shape[-1]
    if 0 < top_k < vocabulary:
        probabilities = probabilities.where(probabilities >= probabilities.topk(top_k).values[:, -1:], 0.0)
    if top_p < 1:
        ascending = probabilities.sort(-1).values
        below = ascending.cumsum(-1)
        cut = (below <= (1 - top_p) * below[:, -1:]).sum(-1, keepdim=True).clamp_(max=vocabulary - 1)
        probabilities = probabilities.where(probabilities >= ascending.gather(-1, cut), 0.0)
    return probabilities


def check(sampling: Sampling) -> None:
    """Raises a `ConfigError` for settings that cannot be used."""
    rules = {
        "max_tokens": (sampling.max_tokens >= 1, "at least 1"),
        "temperature": (sampling.temperature >= 0, "0 (take the likeliest) or more"),
        "top_p": (0 < sampling.top_p <= 1, "more than 0 and at most 1 (1 keeps all)"),
        "top_k": (sampling.top_k >= 0, "0 (keep all) or more"),
        "stop": (all(sampling.stop), "strings that are not empty"),
        "allowed": (all(text and not any(stop in text for stop in sampling.stop) for text in sampling.allowed), "texts that are not empty and hold no stop"),
    }
    for name, (kept, rule) in rules.items():
        if not kept:
            raise ConfigError(f"sampling.{name}", f"must be {rule}, not {getattr(sampling, name)!r}")
