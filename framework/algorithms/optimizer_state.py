"""An optimiser's state as tensors with names, so that safetensors can hold it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_PREFIX = "optimizer."


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of the state, on the CPU, by parameter number and name."""
    state = optimizer.state_dict()["state"]
    return {f"{_PREFIX}{number}.{name}": value.detach().cpu().contiguous() for number, slots in state.items() for name, value in slots.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` took; other tensors are passed over."""
    state = optimizer.state_dict()
    state["state"] = {}
    for key, value in tensors.items():
        if key.startswith(_PREFIX):
            number, name = key.removeprefix(_PREFIX).split(".", 1)
            state["state"].setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(state)
