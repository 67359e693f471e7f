"""A language model learns from conversations, watched on the validation split and judged on the test split: `algo=sft data=FILE`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from textwrap import shorten
from typing import Any

from framework.answering import Answers, answer, judge_answers, read
from framework.checkpoint import open_checkpoint, save_checkpoint
from framework.config import Count, NonNegativeCount
from framework.datasets.checks import Overlong, fit_context
from framework.errors import CheckpointError, ConfigError
from framework.experiment import LANGUAGE_PARTS, Experiment, Interrupted, Run, Stop, write_json
from framework.interfaces import Algorithm, ConversationTuning, Learning, Tuning
from framework.plots import loss_curve
from framework.progress import progress
from framework.tuning_summary import model_card, print_tuning, summarise, write_tuning_report
from framework.types import Estimate, Sampling, Tokens


class Finetune(Experiment):
    """Tunes a language model and compares it with what it was.

    Args:
        curve_points: looks at the validation split; at each a checkpoint is kept that the run can be resumed from.
        patience: looks without a lower validation loss after which the run stops early; 0 never does.
        samples: validation rows whose answers are shown at each look.
        rows: of the test split, at the most, that base and tuned model answer.
        max_tokens: of an answer.
        overlong: what becomes of rows longer than the model can read (see `framework.datasets.checks.fit_context`).
    """

    def __init__(self, curve_points: Count, patience: NonNegativeCount, samples: NonNegativeCount, rows: Count, max_tokens: Count, overlong: Overlong) -> None:
        self.curve_points, self.patience, self.samples, self.rows, self.overlong = curve_points, patience, samples, rows, overlong
        self.sampling = Sampling(max_tokens, temperature=0.0)

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        return {**LANGUAGE_PARTS, "algo": ConversationTuning}

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        directory, record = self._begin(run)
        train, validation = (self._examples(run, split) for split in ("train", "validation"))
        if directory is None:
            record["base"] = asdict(self._judge(run, "base model"))
            self._look(run, record, validation)
        self._learn(run, record, train, validation, directory)
        run.lm.load(open_checkpoint(run.directory / "best")[0])
        tuned = self._judge(run, "tuned model")
        summary = summarise(run, record, tuned, self.rows) | {"wall_s": round(record["wall_s"] + time.monotonic(), 1)}
        self._keep(run, record, model_card(run, summary))
        write_json(run.directory / "summary.json", summary)
        write_tuning_report(run, summary, record, tuned, self.rows)
        run.tracker.log({f"final/{name}": estimate["mean"] for name, estimate in summary["tuned"]["scores"].items()}, record["updates"])
        run.tracker.log_checkpoint(run.directory / "checkpoint")
        print_tuning(summary, run.directory)
        return True

    def _begin(self, run: Run) -> tuple[Path | None, dict[str, Any]]:
        """Checks the data, loads the model, and opens the checkpoint of a run to go on with."""
        for split in ("train", "validation", "test"):
            if not run.data.conversations(split):
                raise ConfigError("data", f"{run.data.name} leaves no row for the split {split}; give more rows")
        for warning in run.data.warnings():
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
        run.lm.place(run.device)
        if directory is not None:
            run.lm.load(directory)
        return directory, record

    def _examples(self, run: Run, split: str) -> list[Tokens]:
        """The rows of a split as the model reads them, none of them longer than it can read."""
        rows = run.data.conversations(split)
        examples, warnings = fit_context([run.lm.encode(row) for row in rows], rows, run.lm.context, self.overlong)
        for warning in warnings:
            print(f"warning: {split}: {warning}", flush=True)
        return examples

    def _judge(self, run: Run, title: str) -> Answers:
        """The model as it is, on the test split."""
        rows = min(self.rows, len(run.data.conversations("test")))
        with progress(f"{title} answers", rows) as tell:
            return judge_answers(run.lm, run.data, "test", self.rows, self.sampling, tell)

    def _learn(self, run: Run, record: dict[str, Any], train: Sequence[Tokens], validation: Sequence[Tokens], directory: Path | None) -> None:
        """Lets the model learn; between updates looks on, keeps checkpoints, and stops if asked to or if nothing is to be gained."""
        total = run.tuning.steps(len(train))
        every = max(1, total // self.curve_points)
        with progress(f"tune {total:,} updates", total, record["updates"]) as tell, Stop() as stop:

            def between_updates(updates: int, metrics: Mapping[str, float]) -> bool:
                record["updates"] = updates
                record["recent"].append(metrics["train/loss"])
                tell(updates, f"loss {metrics['train/loss']:.3f}")
                run.tracker.log(metrics, updates)
                if updates % every == 0 or updates == total:
                    self._look(run, record, validation)
                    self._keep(run, record)
                elif stop.signal is not None:
                    self._keep(run, record)
                return stop.signal is None and not record["stopped"]

            run.tuning.learn(run.lm, train, Learning(between_updates, run.settings.seed, run.device, directory))
        if stop.signal is not None:
            raise Interrupted(stop.exit_code, f"python run.py resume={run.directory}")

    def _look(self, run: Run, record: dict[str, Any], validation: Sequence[Tokens]) -> None:
        """Loss and a few answers on the validation split; the model with the lowest loss so far is kept."""
        updates, (loss, accuracy) = record["updates"], read(run.lm, validation)
        if record["recent"]:
            record["training"].append([updates, fmean(record["recent"])])
            record["recent"].clear()
        record["validation"].append([updates, asdict(loss)])
        run.tracker.log({"validation/loss": loss.mean, "validation/token_accuracy": accuracy.mean}, updates)
        if record["best"] is None or loss.mean < record["best"][1]:
            record["best"] = [updates, loss.mean]
            save_checkpoint(run.directory / "best", run.lm.save, {"updates": updates})
        rows = run.data.conversations("validation")[: self.samples]
        record["samples"] = [[row.prompt[-1].content, row.completion, said] for row, said in zip(rows, answer(run.lm, rows, self.sampling), strict=True)]
        run.tracker.log_table(f"samples/{updates}", ["prompt", "expected", "said"], record["samples"])
        print(f"update {updates:,}: validation loss {loss}, token accuracy {accuracy.mean:.3f}", flush=True)
        for prompt, _, said in record["samples"]:
            print(f"  {shorten(prompt, 60)!r} -> {shorten(said, 90)!r}", flush=True)
        worse = sum(1 for later, _ in record["validation"] if later > record["best"][0])
        if worse and len(record["training"]) > 1 and record["training"][-1][1] < record["training"][-2][1]:
            print(f"  validation loss has not fallen since update {record['best'][0]:,} while training loss still falls: over-fitting", flush=True)
        if self.patience and worse >= self.patience:
            record["stopped"] = f"early, after {worse} looks without a lower validation loss"
        points = [(at, Estimate(**estimate)) for at, estimate in record["validation"]]
        loss_curve(record["training"], points, record["best"][0], run.title, run.directory / "learning_curve.png")

    def _keep(self, run: Run, record: dict[str, Any], card: str | None = None) -> None:
        """A checkpoint: of a run to go on with, or, with its card, of the best model when it is finished."""

        def write(directory: Path) -> None:
            run.lm.save(directory)
            if card is None:
                run.tuning.save(directory)
            else:
                (directory / "README.md").write_text(card, encoding="utf-8")

        so_far = {**record, "wall_s": round(record["wall_s"] + time.monotonic(), 1), "finished": card is not None}
        save_checkpoint(run.directory / "checkpoint", write, {**so_far, "choices": run.choices, "config": run.config, **run.identity})
