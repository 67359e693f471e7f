"""A step of supervised tuning: TRL's SFTTrainer against ours, on the same examples (README.md beside this file).

`python -m experiments.benchmarks.sft_step [--rounds 5] [--examples 32] [--out FILE]`

Both tune the same small Llama with the same optimiser on one torch thread, each step on all the examples; steps are taken in turn in
one process, and the first is a warm-up. The losses of both are shown, step by step: they must be the same. Seconds are of
processor time: on one thread of an idle machine the same as by the clock on the wall, and a busy neighbour moves them little.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.benchmarks.in_turn import COLUMNS, InTurn, asked, keep, lines, times_as_fast
from framework.errors import MissingExtraError
from framework.lm.layout import hidden_states, pack, trees
from framework.lm.logprobs import output_head, weighted_nll
from framework.precision import Precision, computing
from framework.types import Tokens

_RATE, _CLIP = 1e-4, 1.0
_CPU = torch.device("cpu")


def network() -> LlamaForCausalLM:
    """4.2 million parameters of random weights."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 4_096}
    return LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True, pad_token_id=0, bos_token_id=None, eos_token_id=1))


def examples(n: int, seed: int = 0) -> list[Tokens]:
    """Prompts of about 64 tokens and completions of about 48, log-normal, each of 320 at most."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        prompt, completion = (int(np.clip(median * np.exp(rng.normal(0, 0.7)), 6, 320)) for median in (64, 48))
        found.append(Tokens(rng.integers(2, 4_096, prompt + completion), np.repeat([0.0, 1.0], [prompt, completion])))
    return found


class Ours:
    """Steps over packed examples; the loss is the mean over weighted tokens, as TRL's is."""

    def __init__(self, data: list[Tokens], dtype: Precision) -> None:
        self.model, self.data, self.dtype = network(), data, dtype
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=_RATE, weight_decay=0.0, fused=True)  # as TRL's is

    def step(self) -> float:
        """One update; the loss before it."""
        (weight, bias), tokens, total = output_head(self.model), sum(example.weights.sum() for example in self.data), 0.0
        for laid in pack(trees(self.data)[0]):
            with computing(_CPU, self.dtype):
                loss = weighted_nll(hidden_states(self.model, laid), weight, laid.targets, laid.weights / tokens, bias=bias)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return total


def compare(data: list[Tokens], rounds: int, dtype: Precision) -> dict[str, Any]:
    """Seconds of a step, both ways, and the losses; the first round is left out of the times."""
    try:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]
    except ImportError as error:
        raise MissingExtraError("TRL", "bench") from error
    with tempfile.TemporaryDirectory() as directory:
        settings = SFTConfig(
            output_dir=directory, per_device_train_batch_size=len(data), max_steps=rounds + 1, learning_rate=_RATE, lr_scheduler_type="constant",
            max_grad_norm=_CLIP, use_cpu=True, bf16=dtype == "bfloat16", gradient_checkpointing=False, max_length=None,
            logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        rows = [{"input_ids": x.ids.tolist(), "labels": np.where(x.weights > 0, x.ids, -100).tolist()} for x in data]
        return InTurn(Ours(data, dtype).step).run(
            SFTTrainer(model=network(), args=settings, processing_class=_tokenizer(), train_dataset=Dataset.from_list(rows))
        )


def _tokenizer() -> PreTrainedTokenizerFast:
    """The trainer asks for one; the examples come as token ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = {"<pad>": 0, "<eos>": 1}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="<eos>")), pad_token="<pad>", eos_token="<eos>")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    given = asked("sft_step", "Supervised tuning, seconds of a step.", "examples", arguments)
    data = examples(given.count)
    found, tokens = compare(data, given.rounds, given.dtype), sum(len(x.ids) for x in data)
    shown = Table(*COLUMNS)
    for cells in lines(found, tokens):
        shown.add_row(*cells)
    Console().print(shown, times_as_fast(found))
    keep(given, found)


if __name__ == "__main__":
    main()
