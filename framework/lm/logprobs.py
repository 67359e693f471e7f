"""The head of a language model: log-probabilities of given tokens without ever holding the logits of all of them.

With a vocabulary of 152 thousand the logits of a few hundred tokens take more memory than the network. Here the head is applied to
some tokens at a time, and what is kept of them is a number a token. Where the coefficient of every log-probability is known before
the pass (supervised tuning, on-policy policy gradients) the gradient is made in the same go: the head is applied once, and its
logits are never computed again.

N: tokens, D: width of the hidden states, V: vocabulary. Matrices are multiplied in the head's own precision, or in autocast's;
log-sum-exp and sums are float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from framework.errors import ConfigError

_CHUNK_LOGITS = 2**24  # logits held at a time at the most, unless told otherwise: 64 MiB of float32
_CHUNK_TOKENS = 256  # whose logits are held at a time: fewer passes over memory where what is held stays in a processor's cache


def weighted_nll(hidden: Tensor, head_weight: Tensor, targets: Tensor, weights: Tensor, chunk: int | None = None, bias: Tensor | None = None) -> Tensor:
    """Weighted negative log-likelihood −∑ᵢ wᵢ log p(yᵢ), a scalar, with gradients made in the forward pass.

    The gradient reaches `hidden`, and the head where it requires one. Weights may have any sign: with wᵢ = Aᵢ it is the
    on-policy policy gradient.

    Args:
        hidden: states that predict the targets `[N, D]`.
        head_weight: `[V, D]`.
        targets: token ids `[N]`.
        weights: of each token `[N]`; no gradient reaches them.
        chunk: tokens whose logits are held at a time; by default 256, or so many that they fill 64 MiB if those are fewer.
        bias: of the head `[V]`, if it has one.
    """
    _check(hidden, head_weight, targets)
    if weights.shape != targets.shape:
        raise ValueError(f"one weight a target: weights {tuple(weights.shape)}, targets {tuple(targets.shape)}")
    dtype = _compute_dtype(head_weight)
    with torch.autocast(hidden.device.type, enabled=False):
        total: Tensor = _WeightedNll.apply(hidden, head_weight, bias, targets, weights, chunk or _chunk(head_weight), dtype)
    return total


def logprobs(hidden: Tensor, head_weight: Tensor, targets: Tensor, chunk: int | None = None, temperature: float = 1.0, bias: Tensor | None = None) -> Tensor:
    """Log-probabilities log p(yᵢ) at a temperature, `[N]`, differentiable.

    The backward pass computes the logits anew, some tokens at a time, unless those of all tokens fill 64 MiB at the most: then they are kept.

    Args:
        hidden: states that predict the targets `[N, D]`.
        head_weight: `[V, D]`.
        targets: token ids `[N]`.
        chunk: tokens whose logits are held at a time; by default 256, or so many that they fill 64 MiB if those are fewer.
        temperature: what the logits are divided by.
        bias: of the head `[V]`, if it has one.
    """
    _check(hidden, head_weight, targets)
    if temperature <= 0:
        raise ValueError(f"a temperature is above 0, not {temperature}")
    dtype = _compute_dtype(head_weight)
    with torch.autocast(hidden.device.type, enabled=False):
        found: Tensor = _LogProbs.apply(hidden, head_weight, bias, targets, chunk or _chunk(head_weight), dtype, temperature)
    return found


def output_head(model: Any) -> tuple[Tensor, Tensor | None]:
    """Weight `[V, D]` and bias `[V]` of a language model's head, as the functions above want them.

    Raises:
        ConfigError: the head is no plain linear layer, an adapter sits on it for example.
    """
    head = (model.get_base_model() if hasattr(model, "get_base_model") else model).get_output_embeddings()
    if type(head) is not nn.Linear:
        raise ConfigError("lm", f"the head is a {type(head).__name__}, not a plain linear layer; take a model that has one, and put no adapter on it")
    return head.weight, head.bias


class _WeightedNll(torch.autograd.Function):
    """∂/∂zᵢ (−wᵢ log p(yᵢ)) = wᵢ (p − 1{yᵢ}) for logits zᵢ: all that is needed is at hand when p is."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head_weight: Tensor, bias: Tensor | None, targets: Tensor, weights: Tensor, chunk: int, dtype: torch.dtype) -> Tensor:
        head = _Head(hidden, head_weight, bias, dtype)
        gradients = _Gradients(hidden, head_weight, bias, ctx.needs_input_grad)
        weights = weights.detach().float()
        total = hidden.new_zeros((), dtype=torch.float32)
        for part in _parts(len(targets), chunk):
            logits, target = head.logits(part), targets[part]
            chosen = _pick(logits, target)
            total += weights[part] @ (_softmax_(logits) - chosen)
            if any(ctx.needs_input_grad):
                logits.mul_(weights[part, None])
                logits[torch.arange(len(target), device=target.device), target] -= weights[part]
                gradients.add(part, logits, head)
        ctx.save_for_backward(*gradients.found)
        return total

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        found = (None if part is None else part * gradient.to(part.dtype) for part in ctx.saved_tensors)
        return *found, None, None, None, None


class _LogProbs(torch.autograd.Function):
    """∂/∂zᵢ log p(yᵢ) = (1{yᵢ} − p) / temperature; p comes from the logits and their log-sum-exp, which is kept."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head_weight: Tensor, bias: Tensor | None, targets: Tensor, chunk: int, dtype: torch.dtype, temperature: float
    ) -> Tensor:
        head = _Head(hidden, head_weight, bias, dtype, temperature)
        found, normaliser = (hidden.new_zeros(len(targets), dtype=torch.float32) for _ in range(2))
        kept = list[Tensor]()
        keeps = any(ctx.needs_input_grad) and len(targets) * len(head_weight) <= _CHUNK_LOGITS
        for part in _parts(len(targets), chunk):
            logits = head.logits(part)
            chosen = _pick(logits, targets[part])
            normaliser[part] = _softmax_(logits)
            found[part] = chosen - normaliser[part]
            if keeps:
                kept.append(logits.to(dtype))
        ctx.save_for_backward(hidden, head_weight, bias, targets, normaliser, *kept)
        ctx.head, ctx.chunk = head, chunk
        return found

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head_weight, bias, targets, normaliser, *kept = ctx.saved_tensors
        gradients = _Gradients(hidden, head_weight, bias, ctx.needs_input_grad)
        for number, part in enumerate(_parts(len(targets), ctx.chunk)):
            scale = gradient[part] / ctx.head.temperature
            probabilities = kept[number] if kept else ctx.head.logits(part).sub_(normaliser[part, None]).exp_()
            probabilities = probabilities * -scale[:, None]  # float32
            probabilities[torch.arange(len(scale), device=scale.device), targets[part]] += scale
            gradients.add(part, probabilities, ctx.head)
        return *gradients.found, None, None, None, None


class _Head:
    """Logits of some tokens at a time, float32, from matrices multiplied in `dtype`."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, temperature: float = 1.0) -> None:
        self.hidden, self.weight, self.dtype, self.temperature = hidden.detach().to(dtype), weight.detach().to(dtype), dtype, temperature
        self.bias = None if bias is None else bias.detach().float()

    def logits(self, part: slice) -> Tensor:
        """`[n, V]`, at the temperature; nobody else's, so it may be written to."""
        with torch.autocast(self.hidden.device.type, enabled=False):  # the backward pass may run under the caller's
            logits = F.linear(self.hidden[part], self.weight).float()
        if self.bias is not None:
            logits += self.bias
        return logits if self.temperature == 1 else logits.div_(self.temperature)


class _Gradients:
    """Of hidden states, head and bias, as far as each is wanted; the head's is summed in float32."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: tuple[bool, ...]) -> None:
        self.hidden = torch.empty_like(hidden) if wanted[0] else None
        self.weight = torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None
        self.bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None
        self.dtype = weight.dtype

    def add(self, part: slice, logits: Tensor, head: _Head) -> None:
        """Takes the gradient with respect to the logits of a part, `[n, V]`."""
        with torch.autocast(logits.device.type, enabled=False):
            low = logits.to(head.dtype)
            if self.hidden is not None:
                self.hidden[part] = low @ head.weight
            if self.weight is not None and head.dtype == torch.float32:
                self.weight.addmm_(low.t(), head.hidden[part])
            elif self.weight is not None:
                self.weight += low.t() @ head.hidden[part]
            if self.bias is not None:
                self.bias += logits.sum(dim=0)

    @property
    def found(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """In the precision of what they are gradients of."""
        return self.hidden, None if self.weight is None else self.weight.to(self.dtype), None if self.bias is None else self.bias.to(self.dtype)


def _softmax_(logits: Tensor) -> Tensor:
    """Turns logits `[n, V]` into probabilities in place; their log-sum-exp `[n]`."""
    peak = logits.amax(dim=-1, keepdim=True)
    total = logits.sub_(peak).exp_().sum(dim=-1, keepdim=True)
    logits.div_(total)
    return (peak + total.log()).squeeze(-1)


def _pick(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(-1, targets[:, None]).squeeze(-1)


def _parts(n: int, chunk: int) -> list[slice]:
    return [slice(first, min(first + chunk, n)) for first in range(0, n, chunk)]


def _compute_dtype(head_weight: Tensor) -> torch.dtype:
    kind = head_weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head_weight.dtype


def _chunk(head_weight: Tensor) -> int:
    return max(1, min(_CHUNK_TOKENS, _CHUNK_LOGITS // len(head_weight)))


def _check(hidden: Tensor, head_weight: Tensor, targets: Tensor) -> None:
    if hidden.ndim != 2 or head_weight.ndim != 2 or hidden.shape[1] != head_weight.shape[1] or targets.shape != hidden.shape[:1]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (hidden, head_weight, targets))
        raise ValueError(f"hidden [N, D], head_weight [V, D] and targets [N] must fit together, not {shapes}")
