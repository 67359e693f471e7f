"""A step of fitting a reward model: TRL's RewardTrainer against ours, on the same pairs (README.md beside this file).

`python -m experiments.benchmarks.reward_step [--rounds 5] [--pairs 32] [--out FILE]`

Both fit the same small Llama under the same linear head with the same settings on one torch thread, each step on all the pairs; steps
are taken in turn in one process, and the first is a warm-up. The losses of both are shown: they must be the same. Seconds are of
processor time, as in `dpo_step`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast

from experiments.benchmarks.dpo_step import texts, write_model
from experiments.benchmarks.in_turn import COLUMNS, InTurn, asked, keep, lines, times_as_fast
from framework.errors import MissingExtraError
from framework.lm.adapters import Full
from framework.lm.causal import CausalLM
from framework.precision import Precision
from framework.preferences.fitted_reward import Fitting, descend
from framework.rewards.sequence import Pairs, backward, ends_of
from framework.types import Tokens

_RATE, _CENTRING = 1e-5, 0.01
_CPU = torch.device("cpu")


class Ours:
    """Steps of `SequenceReward` on all pairs at once: its loss, its descent, and nothing around them."""

    def __init__(self, directory: Path, head: torch.nn.Linear, rows: list[dict[str, list[int]]], dtype: Precision) -> None:
        lm = CausalLM(str(directory), adapter=Full(), dtype=dtype)
        lm.place(_CPU)
        count, both = len(rows), torch.eye(2)
        pairs = Pairs([_tokens(row["chosen_ids"], row["rejected_ids"]) for row in rows], [both] * count, torch.ones(count), torch.zeros(count))
        fitting = Fitting(epochs=10**6, batch_size=count, learning_rate=_RATE, weight_decay=0.0, centring=_CENTRING, margin=0.0)
        ends = ends_of(lm, pairs)  # so many epochs that the rate does not fall
        learning = [*lm.parameters(), *head.parameters()]
        self.losses = descend(learning, lambda batch: backward(ends, head, pairs, batch, _CENTRING), fitting, count, 0)

    def step(self) -> float:
        """One update; the loss before it."""
        return next(self.losses)[1]


def compare(pairs: int, rounds: int, dtype: Precision) -> dict[str, Any]:
    """Seconds of a step, both ways, and the losses; the first round is left out of the times."""
    try:
        from datasets import Dataset
        from trl import RewardConfig, RewardTrainer  # type: ignore[attr-defined]
    except ImportError as error:
        raise MissingExtraError("TRL", "bench") from error
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "model"
        write_model(model)
        theirs, head = LlamaForSequenceClassification.from_pretrained(model, num_labels=1), torch.nn.Linear(256, 1, bias=False)
        theirs.score.load_state_dict(head.state_dict())
        settings = RewardConfig(
            output_dir=place, per_device_train_batch_size=pairs, max_steps=rounds + 1, learning_rate=_RATE, lr_scheduler_type="constant",
            max_grad_norm=0.0, center_rewards_coefficient=_CENTRING, use_cpu=True, bf16=dtype == "bfloat16",
            gradient_checkpointing=False, max_length=None, logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        tokenizer, data = PreTrainedTokenizerFast.from_pretrained(model), Dataset.from_list([_spaced(row) for row in texts(pairs)])
        trainer = RewardTrainer(model=theirs, args=settings, processing_class=tokenizer, train_dataset=data)
        rows = [dict(row) for row in cast(Dataset, trainer.train_dataset)]
        found = InTurn(Ours(model, head, rows, dtype).step).run(trainer)
    return found | {"tokens": sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)}


def _spaced(row: dict[str, str]) -> dict[str, str]:
    """TRL puts nothing between a prompt and what follows, nor before the mark that ends a text; its words here are told apart by spaces."""
    return {"prompt": row["prompt"], **{side: f" {row[side]} w1" for side in ("chosen", "rejected")}}


def _tokens(*sides: list[int]) -> list[Tokens]:
    """Both sides as examples; what they begin with alike is context."""
    shared = next(place for place, (one, other) in enumerate(zip(*sides, strict=False)) if one != other)
    return [Tokens(np.array(side), (np.arange(len(side)) >= shared).astype(np.float64)) for side in sides]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    given = asked("reward_step", "Reward models, seconds of a step of fitting.", "pairs", arguments)
    found = compare(given.count, given.rounds, given.dtype)
    shown = Table(*COLUMNS)
    for cells in lines(found, found["tokens"]):
        shown.add_row(*cells)
    Console().print(shown)
    Console().print(times_as_fast(found))
    keep(given, found)


if __name__ == "__main__":
    main()
