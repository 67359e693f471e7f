"""Sampling completions: transformers' `generate` against `framework.lm.generate`, the same model object (README.md beside this file).

`python -m experiments.benchmarks.decoding [--rounds 5] [--prompts 8] [--samples 8] [--prompt 64] [--new 64] [--dtype auto] [--out FILE]`

Both draw as many completions of as many prompts at temperature 1 on one torch thread; none of them ends early. Every round measures
each case once, in turn; the first round is a warm-up. The result is the ratio within a round. Seconds are of processor time.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.benchmarks.in_turn import resolved
from framework.experiment import write_json
from framework.lm.generate import generate
from framework.precision import computing
from framework.types import Sampling

CASES = ("transformers", "ours, default matmul", "ours")


def model() -> LlamaForCausalLM:
    """A random Llama of 4.2 million parameters, 4 layers of width 256 under a vocabulary of 4096, that never ends a completion."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
        max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def cases(network: LlamaForCausalLM, prompts: torch.Tensor, samples: int, new: int) -> Mapping[str, Callable[[], object]]:
    """What is measured, by name."""
    rows = prompts.repeat_interleave(samples, 0)

    def theirs() -> object:
        how: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": new}
        return network.generate(input_ids=rows, attention_mask=torch.ones_like(rows), **how)  # type: ignore[misc]

    def ours(onednn: bool) -> object:
        with nullcontext() if onednn else patch("framework.lm.decoding._packs", lambda weight, dtype: False):
            return generate(network, list(prompts.numpy()), Sampling(new), samples, end_ids=(), decode=str)

    return dict(zip(CASES, (theirs, lambda: ours(False), lambda: ours(True)), strict=True))


def measure(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time of each case in each round; the first round is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if number:
                seconds[name].append(time.process_time() - start)
    return seconds


def table(seconds: Mapping[str, Sequence[float]], tokens: int) -> Table:
    """Tokens per second, and how many times those of transformers: median over rounds, and range."""
    shown = Table("case", "seconds", "tokens/s", "times transformers", box=SIMPLE)
    for name, taken in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(seconds[CASES[0]], taken, strict=True)]
        median = statistics.median(taken)
        shown.add_row(name, f"{median:.2f}", f"{tokens / median:.0f}", f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints; writes every number to `--out` where one is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, what in (
        ("rounds", 5, "measured after the first"), ("prompts", 8, "distinct prompts"), ("samples", 8, "completions of each prompt"),
        ("prompt", 64, "tokens of a prompt"), ("new", 64, "tokens of a completion"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (%(default)s)")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="in which both multiply matrices")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    chosen = parser.parse_args(arguments)
    if min(chosen.rounds, chosen.prompts, chosen.samples, chosen.prompt, chosen.new) < 1:
        parser.error("every number must be at least 1")
    chosen.dtype = resolved(chosen.dtype)
    torch.set_num_threads(1)
    network = model()
    prompts = torch.randint(4096, (chosen.prompts, chosen.prompt), generator=torch.Generator().manual_seed(1))
    with computing(torch.device("cpu"), chosen.dtype):
        seconds = measure(cases(network, prompts, chosen.samples, chosen.new), chosen.rounds)
    Console(width=100).print(table(seconds, chosen.prompts * chosen.samples * chosen.new))
    if chosen.out:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
        write_json(chosen.out, {"machine": machine, "dtype": chosen.dtype, "seconds": seconds})


if __name__ == "__main__":
    main()
