"""How a language model's tuning is watched: looks at the validation split, the best model kept, a checkpoint that the run goes on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from framework.checkpoint import open_checkpoint, save_checkpoint
from framework.datasets import SPLITS
from framework.errors import CheckpointError, ConfigError
from framework.experiment import Experiment, Interrupted, Run, Stop
from framework.interfaces import Learning, Tuning
from framework.progress import progress
from framework.types import Estimate


class Watched(Experiment):
    """Lets a language model learn; what is looked at, and what the model is judged by at the end, is the experiment's own.

    The record that it keeps is plain data: `training` holds updates and the mean training loss since the look before, `validation`
    updates and the loss there as an estimate, `best` the update of the lowest and that loss.

    Args:
        curve_points: looks at the validation split; at each a checkpoint is kept that the run can be resumed from.
        patience: looks without a lower validation loss after which the run stops early; 0 never does.
    """

    def __init__(self, curve_points: int, patience: int) -> None:
        self.curve_points, self.patience = curve_points, patience

    def begin(self, run: Run, rows: Callable[[str], Sequence[object]]) -> tuple[Path | None, dict[str, Any]]:
        """Checks the data, and opens the checkpoint of a run to go on with; its model is not loaded.

        Args:
            run: with a part `data`.
            rows: of a split.

        Returns:
            where the checkpoint is, if there is one, and the record so far.
        """
        run.begins_anew("; to begin from its language model, lm.path=DIR/checkpoint")
        data = run.parts["data"]
        for split in SPLITS:
            if not rows(split):
                raise ConfigError("data", f"{data.name} leaves no row for the split {split}; give more rows")
        for warning in data.warnings():
            print(f"warning: {warning}", flush=True)
        directory: Path | None = None
        record: dict[str, Any] = {"updates": 0, "training": [], "recent": [], "validation": [], "samples": [], "best": None, "stopped": ""}
        record["wall_s"] = -time.monotonic()
        if run.settings.resume:
            directory, record = open_checkpoint(Path(run.settings.resume))
            if record["finished"]:
                raise CheckpointError(f"{directory}: this run is finished, there is nothing to resume; use experiment=evaluate checkpoint={directory}")
            run.check_against(record, directory, whole=True)
            record["wall_s"] -= time.monotonic()  # becomes a duration again when the clock is added
        return directory, record

    def watch(self, run: Run, record: dict[str, Any], total: int, learn: Callable[[Learning], None], directory: Path | None, look: Callable[[], None]) -> None:
        """Lets the model learn; between updates looks on, keeps checkpoints, and stops if asked to or if nothing is to be gained.

        Args:
            run: whose model learns.
            record: what is known of the run.
            total: updates.
            learn: does so.
            directory: of the checkpoint to go on from.
            look: looks at the validation split, and says what it saw by `seen`.

        Raises:
            Interrupted: it was asked to stop.
        """
        every = max(1, total // self.curve_points)
        with progress(f"tune {total:,} updates", total, record["updates"]) as tell, Stop() as stop:

            def between_updates(updates: int, metrics: Mapping[str, float]) -> bool:
                record["updates"] = updates
                record["recent"].append(metrics["train/loss"])
                tell(updates, f"loss {metrics['train/loss']:.3f}")
                run.tracker.log(metrics, updates)
                if updates % every == 0 or updates == total:
                    look()
                    self.keep(run, record)
                elif stop.signal is not None:
                    self.keep(run, record)
                return stop.signal is None and not record["stopped"]

            learn(Learning(between_updates, run.settings.seed, run.device, directory))
        if stop.signal is not None:
            raise Interrupted(stop.exit_code, f"python run.py resume={run.directory}")

    def seen(self, run: Run, record: dict[str, Any], loss: Estimate) -> None:
        """Notes a validation loss; the model with the lowest so far is kept, and a run that has gone on without one for too long is ended."""
        updates = record["updates"]
        if record["recent"]:
            record["training"].append([updates, fmean(record["recent"])])
            record["recent"].clear()
        record["validation"].append([updates, {"mean": loss.mean, "low": loss.low, "high": loss.high}])
        if record["best"] is None or loss.mean < record["best"][1]:
            record["best"] = [updates, loss.mean]
            save_checkpoint(run.directory / "best", run.lm.save, {"updates": updates})
        worse = sum(1 for later, _ in record["validation"] if later > record["best"][0])
        if worse and len(record["training"]) > 1 and record["training"][-1][1] < record["training"][-2][1]:
            print(f"  validation loss has not fallen since update {record['best'][0]:,} while training loss still falls: over-fitting", flush=True)
        if self.patience and worse >= self.patience:
            record["stopped"] = f"early, after {worse} looks without a lower validation loss"

    def keep(self, run: Run, record: dict[str, Any], card: str | None = None) -> None:
        """A checkpoint: of a run to go on with, or, with its card, of the best model when it is finished."""

        def write(directory: Path) -> None:
            run.lm.save(directory)
            if card is None:
                tuning: Tuning = run.parts["algo"]
                tuning.save(directory)
            else:
                (directory / "README.md").write_text(card, encoding="utf-8")

        so_far = {**record, "wall_s": round(record["wall_s"] + time.monotonic(), 1), "finished": card is not None}
        save_checkpoint(run.directory / "checkpoint", write, {**so_far, "choices": run.choices, "config": run.config, **run.identity})
