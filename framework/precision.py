"""In which precision a network computes. Weights that learn stay float32; matrices are multiplied in bfloat16 where that is fast."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def bfloat16_if_fast(device: torch.device) -> torch.dtype:
    """bfloat16 on processors with instructions for it, where it is several times faster; float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if supported() else torch.float32


def chosen(device: torch.device, dtype: Precision = "auto") -> torch.dtype:
    """The precision that a setting means: `auto` is `bfloat16_if_fast`."""
    found: torch.dtype = bfloat16_if_fast(device) if dtype == "auto" else getattr(torch, dtype)
    return found


def computing(device: torch.device, dtype: Precision = "auto") -> torch.autocast:
    """A context in which a network with float32 weights multiplies matrices in the chosen precision.

    Losses, norms and softmaxes stay float32, and gradients come back in the weights' own precision.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=chosen(device, dtype) == torch.bfloat16)
