"""Steps of a trainer of transformers and steps of ours, taken in turn in one process; and the command line of such a benchmark."""

from __future__ import annotations

import argparse
import logging
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.utils.logging import disable_progress_bar

from framework.experiment import write_json
from framework.precision import Precision, chosen


class InTurn(TrainerCallback):
    """Takes a step of ours after each of TRL's, and keeps the time of both."""

    def __init__(self, step: Callable[[], float]) -> None:
        self.ours, self.theirs, self.losses, self._step, self._began = [], [], [], step, 0.0  # type: ignore[var-annotated]

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """See `TrainerCallback`."""
        self._began = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """See `TrainerCallback`."""
        ended = time.process_time()
        self.theirs.append(ended - self._began)
        self.losses.append(self._step())
        self._began = time.process_time()
        self.ours.append(self._began - ended)

    def run(self, trainer: Trainer) -> dict[str, Any]:
        """Trains; seconds of a step, both ways, and the losses. The first step is left out of the times."""
        trainer.add_callback(self)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        ratios = [theirs / ours for theirs, ours in zip(self.theirs[1:], self.ours[1:], strict=True)]
        return {
            "ours": {"seconds": statistics.median(self.ours[1:]), "losses": self.losses},
            "trl": {"seconds": statistics.median(self.theirs[1:]), "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]},
            "times_as_fast": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        }


def asked(name: str, description: str, unit: str, arguments: list[str] | None, count: int = 32, **choices: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for: `rounds`, `count` units of a step, `dtype` and `out`, a file to write; one thread from here on, no chatter.

    Args:
        name: of the benchmark's module.
        description: what it measures.
        unit: what a step is of, in the plural.
        arguments: of the command line.
        count: how many units unless told.
        choices: further options and what they may be, the usual first.
    """
    parser = argparse.ArgumentParser(prog=f"python -m experiments.benchmarks.{name}", description=description)
    parser.add_argument("--rounds", type=int, default=5, help="measured steps, after one that is not")
    parser.add_argument(f"--{unit}", dest="count", type=int, default=count, help=f"{unit} of a step")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="in which both ways multiply matrices")
    for option, values in choices.items():
        parser.add_argument(f"--{option}", choices=values, default=values[0])
    given = parser.parse_args(arguments)
    if min(given.rounds, given.count) < 1:
        parser.error(f"--rounds and --{unit} must be 1 or more")
    given.dtype = resolved(given.dtype)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    disable_progress_bar()
    torch.set_num_threads(1)
    return given


def resolved(dtype: Precision) -> str:
    """The name of the precision that a setting means on a processor."""
    return str(chosen(torch.device("cpu"), dtype)).removeprefix("torch.")


COLUMNS = ("way", "s/step", "tokens/s", "first loss", "last loss")


def lines(found: Mapping[str, Any], tokens: int) -> Iterator[list[str]]:
    """Cells of these columns for either way, from what `InTurn.run` found."""
    for way in ("trl", "ours"):
        seconds, losses = found[way]["seconds"], found[way]["losses"]
        yield [way, f"{seconds:.2f}", f"{tokens / seconds:.0f}", *(f"{losses[i]:.5f}" for i in (0, -1))]


def times_as_fast(found: Mapping[str, Any]) -> str:
    """The ratio, in words."""
    return "ours is {median:.1f} times as fast ({least:.1f} to {most:.1f})".format(**found["times_as_fast"])


def keep(given: argparse.Namespace, results: Mapping[str, Any]) -> None:
    """Writes the file, if one was asked for."""
    if given.out:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
        settings = {name: value for name, value in vars(given).items() if name != "out"}
        write_json(given.out, {"settings": settings, "machine": machine, "results": results})
