"""A language model learns from preferences, watched on the validation pairs and judged on the test pairs: `algo=dpo data=preferences data.path=FILE`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from textwrap import shorten
from typing import Any, cast

from framework.checkpoint import open_checkpoint
from framework.config import Count, NonNegativeCount
from framework.datasets import SPLITS
from framework.datasets.checks import Overlong
from framework.departure import departure
from framework.experiment import PREFERENCE_PARTS, Run, write_json
from framework.interfaces import Algorithm, Domain, LanguageModel, SpeakingPolicy, Tuning
from framework.reports.plots import preference_curve
from framework.reports.tuning_summary import model_card, preference_summary, print_tuning, write_tuning_report
from framework.tuning.preferring import Bench, answers_of, common_prompt, encode_pairs, with_prompts
from framework.tuning.watched import Watched
from framework.types import Estimate, Pair

_SHOWN = 3


class Align(Watched):
    """Tunes a language model on preferences and compares it with what it was.

    Args:
        curve_points: looks at the validation split; at each a checkpoint is kept that the run can be resumed from.
        patience: looks without a lower validation loss after which the run stops early; 0 never does.
        samples: validation prompts that the model completes at each look.
        rows: prompts of the test split, at the most, that base and tuned model complete.
        max_tokens: of a completion.
        overlong: what becomes of pairs longer than the model can read (see `framework.datasets.checks.fit_context`).
        climb_episodes: of each look at what the model earns in `domain=` as a policy, and how far it has gone there from what it was
            (`framework.departure`): preferences of a world's acts in words can be followed too far. 0: none.
    """

    def __init__(
        self,
        curve_points: Count,
        patience: NonNegativeCount,
        samples: Count,
        rows: Count,
        max_tokens: Count,
        overlong: Overlong,
        climb_episodes: NonNegativeCount,
    ) -> None:
        super().__init__(curve_points, patience)
        self.samples, self.rows, self.max_tokens, self.overlong, self.climb_episodes = samples, rows, max_tokens, overlong, climb_episodes

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        return {**PREFERENCE_PARTS, **({"domain": Domain, "policy": SpeakingPolicy} if self.climb_episodes else {})}

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        directory, record = self.begin(run, run.preferences.preferences)
        run.lm.place(run.device)
        reference = run.lm.base()
        reference.place(run.device)
        pairs = {split: self._pairs(run, split) for split in SPLITS}
        validation, test = (self._bench(run, split, pairs[split], reference) for split in SPLITS[1:])
        if directory is None:
            record["base"] = asdict(test.judge(run.lm))
            self._look(run, record, validation)
        else:
            run.lm.load(directory)
        learn = lambda learning: run.preference_tuning.learn(run.lm, pairs["train"], learning)  # noqa: E731
        self.watch(run, record, run.preference_tuning.steps(len(pairs["train"])), learn, directory, lambda: self._look(run, record, validation))
        run.lm.load(open_checkpoint(run.directory / "best")[0])
        self._tell(run, record, test, {split: len(found) for split, found in pairs.items()})
        return True

    def _pairs(self, run: Run, split: str) -> Sequence[Pair]:
        """The pairs of a split as the model reads them, none longer than it can read, with what the loss wants to know; the model is as it was."""
        pairs, warnings = encode_pairs(run.lm, run.preferences.preferences(split), self.overlong)
        for warning in warnings:
            print(f"warning: {split}: {warning}", flush=True)
        return run.preference_tuning.prepare(run.lm, pairs)

    def _bench(self, run: Run, split: str, pairs: Sequence[Pair], reference: LanguageModel) -> Bench:
        prompts = with_prompts(run.preferences.preferences(split), self.samples if split == "validation" else self.rows)
        return Bench(run.preference_tuning, reference, pairs, prompts, self.max_tokens, run.settings.seed)

    def _look(self, run: Run, record: dict[str, Any], validation: Bench) -> None:
        """The validation pairs, and a few completions of their prompts."""
        updates, verdict = record["updates"], validation.judge(run.lm)
        run.tracker.log({"validation/loss": verdict.loss.mean} | {f"validation/{name}": found.mean for name, found in verdict.scores.items()}, updates)
        sides = _sides(validation, {"said": verdict.said})[:_SHOWN]
        record["samples"] = [[prompt, *said.values()] for prompt, said in sides]
        run.tracker.log_table(f"samples/{updates}", ["prompt", "chosen", "rejected", "said"], record["samples"])
        told = ", ".join(f"{name.replace('_', ' ')} {found.mean:.3f}" for name, found in verdict.scores.items())
        if self.climb_episodes:
            gone = self._gone(run, validation.reference)
            record.setdefault("path", []).append([updates, gone])
            run.tracker.log({"drawn/kl": gone["kl"], "drawn/gold": gone["gold"]["mean"]}, updates)
            told += f"; in {run.domain.name}/{run.domain.environment} gold {Estimate(**gone['gold'])}, {gone['kl']:.2f} nats an episode away"
        print(f"update {updates:,}: validation loss {verdict.loss}, {told}", flush=True)
        for prompt, *_, said in record["samples"]:
            print(f"  {shorten(prompt, 60)!r} -> {shorten(said, 90)!r}", flush=True)
        record.setdefault("looks", []).append([updates, {name: asdict(found) for name, found in {"loss": verdict.loss, **verdict.scores}.items()}])
        self.seen(run, record, verdict.loss)
        looks = [(at, {name: Estimate(**found) for name, found in looked.items()}) for at, looked in record["looks"]]
        preference_curve(record["training"], looks, record["best"][0], run.title, run.directory / "learning_curve.png")

    def _gone(self, run: Run, reference: LanguageModel) -> dict[str, Any]:
        """What the model earns as a policy, and how far it is from what it was."""
        policy = cast(SpeakingPolicy, run.policy)
        return departure(policy, policy.speaking_by(reference), run.domain, None, self.climb_episodes)

    def _tell(self, run: Run, record: dict[str, Any], test: Bench, sizes: Mapping[str, int]) -> None:
        """Judges the best model on the test split, and leaves checkpoint, summary and report."""
        tuned = test.judge(run.lm)
        summary = preference_summary(run, record, tuned, sizes) | {"wall_s": round(record["wall_s"] + time.monotonic(), 1)}
        if self.climb_episodes:
            summary["climbed"] = {"path": record["path"]}
        self.keep(run, record, model_card(run, summary))
        write_json(run.directory / "summary.json", summary)
        write_tuning_report(run, summary, _sides(test, {"base": record["base"]["said"], "tuned": tuned.said}))
        run.tracker.log({f"final/{name}": estimate["mean"] for name, estimate in summary["tuned"]["scores"].items()}, record["updates"])
        run.tracker.log_checkpoint(run.directory / "checkpoint")
        print_tuning(summary, run.directory)


def _sides(bench: Bench, said: Mapping[str, Sequence[str]]) -> list[tuple[str, Mapping[str, str]]]:
    """Prompts, with both sides of their first pair and what was said to them, by who said it."""
    answers = zip(*said.values(), strict=True)
    return [
        (common_prompt(each)[-1].content, dict(zip(("chosen", "rejected", *said), (*answers_of(each), *told), strict=True)))
        for each, told in zip(bench.prompts, answers, strict=True)
    ]
