"""What of a language model learns: nothing (no adapter), low-rank updates, or every weight."""

from __future__ import annotations

import warnings
from typing import Any

from framework.config import Count


class Lora:
    """Low-rank updates of every linear layer (Hu et al., 2021; peft).

    Args:
        rank: of the updates.
        alpha: their scale, times the rank.
    """

    def __init__(self, rank: Count = 8, alpha: Count = 16) -> None:
        self.rank, self.alpha = rank, alpha

    def onto(self, model: Any, task: str | None = None) -> Any:
        """A transformer in which they learn and nothing else does; `task` as peft names it, where the model has a head."""
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules="all-linear", task_type=task)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers', of a name by which peft asks it something
            return get_peft_model(model, lora)


class Full:
    """Every weight learns."""
