"""A model made ready to decode, and afterwards exactly what it was: no parameter is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    weights they belong to, and on a processor oneDNN multiplies (up to twice as fast as the default where that is MKL on AMD); in
    lower precision LoRA stays apart, because a small update added to a bfloat16 weight is lost in rounding. Under autocast weights
    are cast once. All this is done to copies, which take the memory of those weights once more.

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
            for module, weight, bias in _linears(network):
                if forward := _forward(module, weight, bias, rows):
                    module.forward = forward  # type: ignore[method-assign]
                    replaced.append(module)
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


def _linears(module: nn.Module) -> Iterator[tuple[nn.Module, Tensor, Tensor | None]]:
    """Every linear layer within a module, the weight it multiplies by, its LoRA update included, and its bias."""
    child: Any
    for child in module.children():
        if type(child) is nn.Linear:
            yield child, child.weight, child.bias
        elif _can_merge(child):
            deltas = [child.get_delta_weight(name) for name in child.active_adapters if name in child.lora_A and not child.disable_adapters]
            yield child, sum(deltas, child.base_layer.weight), child.base_layer.bias
        else:
            yield from _linears(child)


def _can_merge(module: Any) -> bool:
    """Whether a module is plain LoRA in float32: the update is a matrix, and nothing else is."""
    if not hasattr(module, "lora_A") or not hasattr(module, "base_layer") or type(module.base_layer) is not nn.Linear:
        return False
    exact = _compute(module.base_layer.weight) == torch.float32
    return exact and not (module.merged or module.lora_variant or any(module.lora_bias.values()))


def _compute(weight: Tensor) -> torch.dtype:
    """The precision in which a weight is multiplied."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _forward(module: nn.Module, weight: Tensor, bias: Tensor | None, rows: int) -> Callable[[Tensor], Tensor] | None:
    """What a linear layer does while the model decodes; None to leave it as it is."""
    dtype = _compute(weight)
    if dtype == torch.float32 and weight.device.type == "cpu" and rows >= _PACKED_ROWS and _onednn_is_exact():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    if weight is getattr(module, "weight", None) and weight.dtype == dtype:
        return None
    weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    return lambda x: F.linear(x.to(dtype), weight, bias)


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
