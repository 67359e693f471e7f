"""What of a language model learns: nothing (no adapter), low-rank updates, or every weight."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
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

    def take(self, tuned: Any, directory: Path) -> None:
        """Puts the updates that are kept in a directory in the place of those of a model."""
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(tuned, load_peft_weights(str(directory), device=str(tuned.device)))


@dataclass(frozen=True)
class KeptLora:
    """A low-rank adapter in peft's layout.

    Attributes:
        directory: where it is.
        base: the model that it belongs to, a directory or hub name.
        rank: of the updates.
        alpha: their scale, times the rank.
    """

    directory: Path
    base: str
    rank: int
    alpha: int

    def folded_into(self, model: Any) -> Any:
        """The model with the updates added to its weights, all of which learn."""
        from peft import PeftModel

        return PeftModel.from_pretrained(model, str(self.directory)).merge_and_unload().requires_grad_(True)


def lora_at(source: str) -> KeptLora | None:
    """The low-rank adapter in a local directory, if there is one and no whole model beside it."""
    directory = Path(source)
    if not (directory / "adapter_config.json").exists() or (directory / "config.json").exists():
        return None
    known = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    return KeptLora(directory, str(known["base_model_name_or_path"]), int(known["r"]), int(known["lora_alpha"]))


class Full:
    """Every weight learns."""
