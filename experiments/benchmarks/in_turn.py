"""Steps of a trainer of transformers and steps of ours, taken in turn in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from transformers import PrinterCallback, Trainer, TrainerCallback


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
