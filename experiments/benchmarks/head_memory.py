"""Log-probabilities over a large vocabulary: time and memory of a plain pass and of ours (README.md beside this file).

`python -m experiments.benchmarks.head_memory [--rounds 3] [--tokens 512] [--width 512] [--vocabulary 151936] [--learn] [--out FILE]`

Each way runs forward and backward in a process of its own, whose peak memory is then its own; the ways take turns. `weighted_nll` and
`logprobs` are also given twice the tokens: their extra memory must not grow. Seconds are of processor time on one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from framework.experiment import write_json
from framework.lm.logprobs import logprobs, weighted_nll

WAYS = ("plain", "weighted_nll", "logprobs", "weighted_nll, twice the tokens", "logprobs, twice the tokens")


def measure(way: str, tokens: int, width: int, vocabulary: int, learn: bool) -> dict[str, float]:
    """One pass, forward and backward to the hidden states, and to the head where it learns; what it took beside its inputs."""
    tokens *= 2 if way.endswith("twice the tokens") else 1
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=draw).requires_grad_()
    head = torch.randn(vocabulary, width, generator=draw).mul_(width**-0.5).requires_grad_(learn)
    targets, weights = torch.randint(vocabulary, (tokens,), generator=draw), torch.rand(tokens, generator=draw)
    before, began = _peak(), time.process_time()
    if way == "plain":
        loss = -((hidden @ head.t()).log_softmax(-1).gather(1, targets[:, None])[:, 0] @ weights)
    elif way.startswith("weighted_nll"):
        loss = weighted_nll(hidden, head, targets, weights)
    else:
        loss = -(logprobs(hidden, head, targets) @ weights)
    loss.backward()
    seconds = time.process_time() - began
    assert hidden.grad is not None
    return {"seconds": seconds, "extra_mib": _peak() - before, "loss": loss.item(), "gradient": hidden.grad.norm().item()}


def _peak() -> float:
    """Most memory this process ever held, MiB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 2**10


def compare(rounds: int, sizes: list[str]) -> dict[str, dict[str, float]]:
    """Medians over rounds, each way in its own process."""
    taken: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, found in taken.items():
            command = [sys.executable, "-m", "experiments.benchmarks.head_memory", "--way", way, *sizes]
            found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]))
    return {way: {key: statistics.median(each[key] for each in found) for key in found[0]} for way, found in taken.items()}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.head_memory", description="The head of a language model, without its logits.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--width", type=int, default=512, help="of hidden states")
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--learn", action="store_true", help="the head learns too")
    parser.add_argument("--way", choices=WAYS, help="measure this one, here")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    asked = parser.parse_args(arguments)
    settings: dict[str, Any] = {name: getattr(asked, name) for name in ("tokens", "width", "vocabulary", "learn")}
    if min(asked.rounds, asked.tokens, asked.width, asked.vocabulary) < 1:
        parser.error("all numbers must be 1 or more")
    if asked.way:
        print(json.dumps(measure(asked.way, **settings)))
        return
    sizes = [word for name in ("tokens", "width", "vocabulary") for word in (f"--{name}", str(settings[name]))] + ["--learn"] * asked.learn
    results = compare(asked.rounds, sizes)
    shown = Table("way", "seconds", "extra MiB", "loss", "|gradient|")
    for way, found in results.items():
        shown.add_row(way, f"{found['seconds']:.2f}", f"{found['extra_mib']:.0f}", f"{found['loss']:.3f}", f"{found['gradient']:.5f}")
    Console().print(shown)
    if asked.out:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
        write_json(asked.out, {"settings": {"rounds": asked.rounds, **settings}, "machine": machine, "results": results})


if __name__ == "__main__":
    main()
