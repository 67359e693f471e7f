"""A language model learns from conversations, watched on the validation split and judged on the test split: `algo=sft data=FILE`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from textwrap import shorten
from typing import Any

from framework.checkpoint import open_checkpoint
from framework.config import Count, NonNegativeCount
from framework.datasets.checks import Overlong, fit_context
from framework.experiment import LANGUAGE_PARTS, Run, write_json
from framework.interfaces import Algorithm, ConversationTuning, Tuning
from framework.progress import progress
from framework.reports.plots import loss_curve
from framework.reports.tuning_summary import model_card, print_tuning, summarise, write_tuning_report
from framework.tuning.answering import Answers, answer, judge_answers, read
from framework.tuning.watched import Watched
from framework.types import Estimate, Sampling, Tokens


class Finetune(Watched):
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
        super().__init__(curve_points, patience)
        self.samples, self.rows, self.overlong = samples, rows, overlong
        self.sampling = Sampling(max_tokens, temperature=0.0)

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        return {**LANGUAGE_PARTS, "algo": ConversationTuning}

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        directory, record = self.begin(run, run.data.conversations)
        run.lm.place(run.device)
        train, validation = (self._examples(run, split) for split in ("train", "validation"))
        if directory is None:
            record["base"] = asdict(self._judge(run, "base model"))
            self._look(run, record, validation)
        else:
            run.lm.load(directory)
        learn = lambda learning: run.tuning.learn(run.lm, train, learning)  # noqa: E731
        self.watch(run, record, run.tuning.steps(len(train)), learn, directory, lambda: self._look(run, record, validation))
        run.lm.load(open_checkpoint(run.directory / "best")[0])
        tuned = self._judge(run, "tuned model")
        summary = summarise(run, record, tuned, self.rows) | {"wall_s": round(record["wall_s"] + time.monotonic(), 1)}
        self.keep(run, record, model_card(run, summary))
        write_json(run.directory / "summary.json", summary)
        write_tuning_report(run, summary, self._sides(run, record, tuned))
        run.tracker.log({f"final/{name}": estimate["mean"] for name, estimate in summary["tuned"]["scores"].items()}, record["updates"])
        run.tracker.log_checkpoint(run.directory / "checkpoint")
        print_tuning(summary, run.directory)
        return True

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

    def _sides(self, run: Run, record: Mapping[str, Any], tuned: Answers) -> list[tuple[str, Mapping[str, str]]]:
        """Prompts of the test split, and what each model says to them."""
        rows = zip(run.data.conversations("test"), record["base"]["said"], tuned.said, strict=False)
        return [(row.prompt[-1].content, {"expected": row.completion, "base": base, "tuned": said}) for row, base, said in rows]

    def _look(self, run: Run, record: dict[str, Any], validation: Sequence[Tokens]) -> None:
        """Loss and a few answers on the validation split."""
        updates, (loss, accuracy) = record["updates"], read(run.lm, validation)
        run.tracker.log({"validation/loss": loss.mean, "validation/token_accuracy": accuracy.mean}, updates)
        rows = run.data.conversations("validation")[: self.samples]
        record["samples"] = [[row.prompt[-1].content, row.completion, said] for row, said in zip(rows, answer(run.lm, rows, self.sampling), strict=True)]
        run.tracker.log_table(f"samples/{updates}", ["prompt", "expected", "said"], record["samples"])
        print(f"update {updates:,}: validation loss {loss}, token accuracy {accuracy.mean:.3f}", flush=True)
        for prompt, _, said in record["samples"]:
            print(f"  {shorten(prompt, 60)!r} -> {shorten(said, 90)!r}", flush=True)
        self.seen(run, record, loss)
        points = [(at, Estimate(**estimate)) for at, estimate in record["validation"]]
        loss_curve(record["training"], points, record["best"][0], run.title, run.directory / "learning_curve.png")
