"""What of a language model learns: nothing (no adapter), low-rank updates, or every weight."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from framework.config import Count


class Lora:
    """Low-rank updates of every linear layer (Hu et al., 2021; peft).

    Args:
        rank: of the updates.
        alpha: their scale, times the rank.
    """

    def __init__(self, rank: Count = 8, alpha: Count = 16) -> None:
        self.rank, self.alpha = rank, alpha

    def onto(self, model: Any, task: str | None = None, dtype: torch.dtype = torch.float32) -> Any:
        """A transformer in which they learn and nothing else does.

        Args:
            model: of transformers, in float32.
            task: as peft names it, where the model has a head.
            dtype: of the weights that are held; bfloat16 for a model that is read under autocast alone, which need not cast them every time.
        """
        from peft import LoraConfig, get_peft_model
        from peft.tuners.lora import LoraLayer

        lora = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules="all-linear", task_type=task)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers', of a name by which peft asks it something
            tuned = get_peft_model(model, lora)
        for layer in tuned.modules():
            if isinstance(layer, LoraLayer):
                layer.cast_input_dtype_enabled = False  # autocast sees to it; peft would cast to float32 and autocast back
                layer.base_layer.to(dtype)
        return tuned


class Full:
    """Every weight learns."""
