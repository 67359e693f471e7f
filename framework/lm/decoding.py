"""A model made ready to decode, and afterwards exactly what it was: no parameter is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framework.errors import ConfigError
from framework.lm.group_cache import ATTENTION

_PACKED_ROWS = 8  # with fewer rows a step is bound by reading the weights, and packing them first only costs time


@contextmanager
def decoding(model: Any, rows: int) -> Iterator[Any]:
    """A causal language model of transformers, bare or in a peft model, for as long as it decodes; not for two threads at once.

    Dropout is off and attention reads a `GroupCache`. Where matrices are multiplied in float32, LoRA updates are added to the
    weights they belong to; in lower precision LoRA stays apart, because a small update added to a bfloat16 weight is lost in rounding.
    Under autocast weights are cast once. On a processor oneDNN multiplies, by weights laid out beforehand (up to twice as fast as the
    default where that is MKL on AMD). All this is done to copies, which take the memory of those weights once more.

    Args:
        model: whose parameters stay as they are.
        rows: sequences of a batch.

    Raises:
        ConfigError: the model remembers in another way than by keys and values of all tokens.
    """
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    _check(network)
    learning, attention = [module for module in network.modules() if module.training], network.config._attn_implementation
    replaced = []
    try:
        network.eval().set_attn_implementation(ATTENTION)
        with torch.no_grad():
            for layer in _linears(network):
                if forward := _forward(layer, rows):
                    layer.module.forward = forward  # type: ignore[method-assign]
                    replaced.append(layer.module)
        yield network
    finally:
        for module in replaced:
            del module.forward
        network.set_attn_implementation(attention)
        for module in learning:
            module.training = True


def _check(network: Any) -> None:
    others = sorted(set(getattr(network.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"})
    if others or getattr(network, "_is_stateful", False) or not network.is_backend_compatible():
        why = f"has layers of the kind {others[0]}" if others else "does not attend through transformers' attention interface"
        raise ConfigError("lm.path", f"{type(network).__name__} {why} and cannot be decoded here; take a model of the Llama or Qwen kind")


@dataclass(frozen=True)
class _Linear:
    """A linear layer within a model."""

    module: nn.Module
    weight: Tensor  # [out, in]
    bias: Tensor | None
    low_rank: tuple[Tensor, Tensor] | None = None  # [R, in] and [out, R], whose product is added to the weight


def _linears(module: nn.Module) -> Iterator[_Linear]:
    """Every linear layer within a module, plain LoRA as one with it."""
    child: Any
    for child in module.children():
        if type(child) is nn.Linear:
            yield _Linear(child, child.weight, child.bias)
        elif _is_plain_lora(child):
            base, names = child.base_layer, [name for name in child.active_adapters if name in child.lora_A and not child.disable_adapters]
            if _compute(base.weight) == torch.float32:
                yield _Linear(child, sum(map(child.get_delta_weight, names), base.weight), base.bias)
            else:
                down = [child.lora_A[name].weight for name in names]
                up = [child.lora_B[name].weight * child.scaling[name] for name in names]
                yield _Linear(child, base.weight, base.bias, (torch.cat(down), torch.cat(up, dim=1)) if names else None)
        else:
            yield from _linears(child)


def _is_plain_lora(module: Any) -> bool:
    """Whether a module is a linear layer and low-rank updates, and nothing else is."""
    if not hasattr(module, "lora_A") or not hasattr(module, "base_layer") or type(module.base_layer) is not nn.Linear:
        return False
    return not (module.merged or module.lora_variant or any(module.lora_bias.values()))


def _compute(weight: Tensor) -> torch.dtype:
    """The precision in which a weight is multiplied."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _forward(layer: _Linear, rows: int) -> Callable[[Tensor], Tensor] | None:
    """What a linear layer does while the model decodes; None to leave it as it is."""
    dtype = _compute(layer.weight)
    packs = rows >= _PACKED_ROWS and _packs(layer.weight, dtype)
    if not packs and layer.weight is getattr(layer.module, "weight", None) and layer.weight.dtype == dtype:
        return None
    weight, bias = layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows) if packs else None
    low_rank = None if layer.low_rank is None else [part.to(dtype) for part in layer.low_rank]

    def forward(x: Tensor) -> Tensor:
        x = x.to(dtype)
        y: Tensor = F.linear(x, weight, bias) if packed is None else torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
        return y if low_rank is None else y + F.linear(F.linear(x, low_rank[0]), low_rank[1])

    return forward


def _packs(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether oneDNN is to multiply by a weight in this precision, laid out beforehand."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return _onednn_is_exact() if dtype == torch.float32 else dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def _onednn_is_exact() -> bool:
    """Whether oneDNN is there and its float32 is float32 on this processor: no worse than rounding against float64."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(64, 512, generator=generator), torch.randn(256, 512, generator=generator)
    got = torch.ops.mkldnn._linear_pointwise(x, torch.ops.mkldnn._reorder_linear_weight(weight, 64), None, "none", [], "").double()
    exact = x.double() @ weight.double().T
    return bool((got - exact).norm() < 2e-6 * exact.norm())
