"""Language models under a head of one number, in the layout in which Hugging Face keeps sequence classifiers.

There the head is linear, without bias, and reads the last hidden state at the last token that is no padding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from framework.errors import ConfigError
from framework.lm.adapters import Full, Lora
from framework.lm.causal import CausalLM
from framework.lm.layout import backbone
from framework.types import Tokens


class Classifier(CausalLM):
    """What `write` left, to be read: its hidden states, and the head that goes with them. It says nothing and learns no more."""

    @property
    def head(self) -> nn.Linear:
        """Known after `place`."""
        return cast(nn.Linear, self.model.score)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """See `CausalLM`; a classifier's own configuration names none."""
        return frozenset({self.tokenizer.eos_token_id} - {None})

    @property
    def _head(self) -> nn.Linear:
        return self.head

    def _load(self, source: str) -> Any:
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging

        logging.disable_progress_bar()
        model, found = AutoModelForSequenceClassification.from_pretrained(source, dtype=torch.float32, local_files_only=True, output_loading_info=True)
        if strange := sorted({*found["missing_keys"], *found["unexpected_keys"]}):
            raise ValueError(f"its weights do not fit: {', '.join(strange[:4])}")
        score = getattr(model, "score", None)
        if not isinstance(score, nn.Linear) or score.out_features != 1 or score.bias is not None:
            raise ValueError("it has no linear head of one number")
        return model


def pad_of(lm: CausalLM) -> int:
    """The token that fills up rows: the tokenizer's own, or else the one that ends a text, which its tokenizer then pads with.

    Raises:
        ConfigError: it has neither.
    """
    if lm.tokenizer.pad_token_id is None:
        lm.tokenizer.pad_token = lm.tokenizer.eos_token
    if lm.tokenizer.pad_token_id is None:
        raise ConfigError("lm.path", f"the tokenizer of {lm.path} has neither a padding nor an end-of-text token, of which a classifier needs one")
    return int(lm.tokenizer.pad_token_id)


def write(lm: CausalLM, head: nn.Linear, directory: Path) -> None:
    """Leaves model and tokenizer for plain `AutoModelForSequenceClassification.from_pretrained`, in float32; the model can go on learning."""
    model = lm.model
    if not isinstance(lm.adapter, Full):  # whose weights are float32 already; a merge in fewer bits would be another model
        model = copy.deepcopy(model).float()
        model = model.merge_and_unload() if isinstance(lm.adapter, Lora) else model
    _under(model, head, pad_of(lm)).save_pretrained(directory)
    lm.tokenizer.save_pretrained(directory)


@torch.no_grad()
def verify_classifier(lm: CausalLM, examples: Sequence[Tokens]) -> None:
    """Reads examples in two ways, so that a model is refused whose classifier would not give the scores that were fitted.

    Raises:
        ConfigError: transformers has no class that classifies sequences by it, or one that reads other states than `LanguageModel.ends`.
    """
    theirs = _under(lm.model, nn.Identity(), pad_of(lm))
    told = torch.cat([theirs(input_ids=torch.as_tensor(example.ids, device=lm.device)[None], use_cache=False).logits.float() for example in examples])
    ours = torch.cat([part.states for part in lm.ends([examples])])
    if not (ours - told).norm() <= 0.02 * told.norm():  # rounding of half precision
        raise ConfigError("lm", f"{type(theirs).__name__} does not score by the last hidden state at the last token; take another model")


def _under(model: Any, head: nn.Module, pad: int) -> Any:
    """The network of a model under another head, as a sequence classifier; weights are shared, none is made."""
    from transformers import AutoModelForSequenceClassification

    network = backbone(model)
    config = copy.deepcopy(network.config)
    config.num_labels, config.pad_token_id = 1, pad
    remedy = "a reward of it could not be kept in standard layout; take another model, such as a Llama, a Qwen or a Mistral"
    try:
        with torch.device("meta"):
            found: Any = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise ConfigError("lm", f"transformers has no sequence classifier of the kind {config.model_type!r}: {remedy}") from error
    score = getattr(found, "score", None)
    if not isinstance(score, nn.Linear) or score.bias is not None or type(found.base_model) is not type(network):
        raise ConfigError("lm", f"{type(found).__name__} has no linear head 'score' over a {type(network).__name__}: {remedy}")
    setattr(found, found.base_model_prefix, network)
    found.score = head
    return found.eval()
