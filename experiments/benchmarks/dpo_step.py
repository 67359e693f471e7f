"""A step of direct preference optimisation: TRL's DPOTrainer against ours, on the same pairs (README.md beside this file).

`python -m experiments.benchmarks.dpo_step [--rounds 5] [--pairs 32] [--out FILE]`

Both tune the same small Llama with the same settings on one torch thread, each step on all the pairs; steps are taken in turn in one
process, and the first is a warm-up. TRL runs twice: as it comes, reading the pairs by the reference model in every step, and with
`precompute_ref_log_probs`, as ours always does. The losses of both are shown, step by step: they must be the same. Seconds are of
processor time: on one thread of an idle machine the same as by the clock on the wall, and a busy neighbour moves them little.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.benchmarks.in_turn import COLUMNS, InTurn, asked, keep, lines, times_as_fast
from framework.algorithms.dpo import DPO
from framework.errors import MissingExtraError
from framework.interfaces import Learning
from framework.lm.adapters import Full
from framework.lm.causal import CausalLM
from framework.precision import Precision
from framework.types import Pair, Tokens

_RATE, _CLIP, _BETA, _WORDS = 1e-5, 1.0, 0.1, 4_096
_CPU = torch.device("cpu")


SMALL: dict[str, int] = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4}
"""4.2 million parameters."""


def write_model(directory: Path, shape: dict[str, int] = SMALL) -> None:
    """Random weights, and a tokenizer of one word a token; 0 is padding and 1 the end."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {**shape, "vocab_size": _WORDS}
    LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True, pad_token_id=0, bos_token_id=None, eos_token_id=1)).save_pretrained(directory)
    inner = Tokenizer(models.WordLevel({f"w{number}": number for number in range(_WORDS)}, unk_token="w2"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="w0", eos_token="w1").save_pretrained(directory)


def texts(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Prompts of about 64 tokens and completions of about 48, log-normal, each of 320 at most."""
    rng = np.random.default_rng(seed)

    def text(median: int) -> str:
        return " ".join(f"w{word}" for word in rng.integers(2, _WORDS, int(np.clip(median * np.exp(rng.normal(0, 0.7)), 6, 320))))

    return [{"prompt": text(64), "chosen": text(48), "rejected": text(48)} for _ in range(n)]


class Ours:
    """Steps of `DPO` on all pairs at once, and so the loop of `PreferenceDescent` with nothing around it."""

    def __init__(self, directory: Path, rows: list[dict[str, list[int]]], dtype: Precision) -> None:
        self.lm = CausalLM(str(directory), adapter=Full(), dtype=dtype)
        self.lm.place(_CPU)
        self.dpo = DPO(
            n_epochs=10**6, batch_size=len(rows), learning_rate=_RATE, warmup=0.0, weight_decay=0.0, max_grad_norm=_CLIP,
            beta=_BETA, loss="sigmoid", flipped=0.1, sft_coef=0.0,
        )  # fmt: skip  # so many epochs that the rate does not fall
        self.pairs = self.dpo.prepare(self.lm, [Pair(_tokens(row, "chosen"), _tokens(row, "rejected")) for row in rows])
        self.dpo.begin(self.lm.parameters(), len(rows), Learning(lambda *_: True, 0, _CPU))

    def step(self) -> float:
        """One update; the loss before it."""
        total = 0.0
        for _, losses in self.dpo.compare(self.lm, self.pairs):
            mean = losses.sum() / len(self.pairs)
            mean.backward()
            total += mean.item()
        self.dpo.update(total)
        return total


def compare(pairs: int, rounds: int, precomputed: bool, dtype: Precision) -> dict[str, Any]:
    """Seconds of a step, both ways, and the losses; the first round is left out of the times."""
    try:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined]
    except ImportError as error:
        raise MissingExtraError("TRL", "bench") from error
    with tempfile.TemporaryDirectory() as place:
        model, network = Path(place) / "model", lambda: LlamaForCausalLM.from_pretrained(model)
        write_model(model)
        settings = DPOConfig(
            output_dir=place, per_device_train_batch_size=pairs, max_steps=rounds + 1, learning_rate=_RATE, lr_scheduler_type="constant",
            max_grad_norm=_CLIP, beta=_BETA, use_cpu=True, bf16=dtype == "bfloat16", gradient_checkpointing=False, max_length=None,
            precompute_ref_log_probs=precomputed, logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        tokenizer, data = PreTrainedTokenizerFast.from_pretrained(model), Dataset.from_list(texts(pairs))
        reference = None if precomputed else network()
        trainer = DPOTrainer(model=network(), ref_model=reference, args=settings, processing_class=tokenizer, train_dataset=data)
        rows = [dict(row) for row in cast(Dataset, trainer.train_dataset)]
        found = InTurn(Ours(model, rows, dtype).step).run(trainer)
    return found | {"tokens": sum(2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)}


def _tokens(row: dict[str, list[int]], side: str) -> Tokens:
    ids = [row["prompt_ids"], row[f"{side}_ids"]]
    return Tokens(np.concatenate(ids), np.repeat([0.0, 1.0], [len(part) for part in ids]))


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    given = asked("dpo_step", "Preference optimisation, seconds of a step.", "pairs", arguments)
    results = {name: compare(given.count, given.rounds, name == "precomputed", given.dtype) for name in ("default", "precomputed")}
    shown = Table("TRL's reference", *COLUMNS)
    for name, found in results.items():
        for cells in lines(found, found["tokens"]):
            shown.add_row(name, *cells)
    Console().print(shown)
    for name, found in results.items():
        Console().print(f"{name}: {times_as_fast(found)}")
    keep(given, results)


if __name__ == "__main__":
    main()
