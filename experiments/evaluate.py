"""A finished run on the held-out splits: `experiment=evaluate checkpoint=DIR`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from framework.checkpoint import open_checkpoint
from framework.config import Count
from framework.errors import ConfigError
from framework.experiment import LANGUAGE_PARTS, POLICY_PARTS, PREFERENCE_PARTS, Experiment, Run, write_json
from framework.interfaces import Algorithm, PreferenceTuning, Tuning
from framework.reports.report import write_report
from framework.reports.summary import judge, print_summary, unbeaten
from framework.reports.tuning_summary import preference_summary, print_tuning, summarise
from framework.tuning.answering import judge_answers
from framework.tuning.preferring import Bench, encode_pairs, with_prompts
from framework.types import Sampling


class Evaluate(Experiment):
    """Loads a policy, or a tuned language model, and judges it as training does at its end.

    Args:
        episodes: of each split, for a policy.
        rows: of the test split, at the most, for a language model.
        max_tokens: of an answer.
    """

    def __init__(self, episodes: Count, rows: Count, max_tokens: Count) -> None:
        self.episodes, self.rows, self.max_tokens = episodes, rows, max_tokens

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        if isinstance(algorithm, PreferenceTuning):
            return PREFERENCE_PARTS
        return LANGUAGE_PARTS if isinstance(algorithm, Tuning) else POLICY_PARTS

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        if run.settings.checkpoint is None:
            raise ConfigError("checkpoint", "experiment=evaluate needs one; give checkpoint=DIR, a run directory or a checkpoint in it")
        directory, record = open_checkpoint(Path(run.settings.checkpoint))
        run.check_against(record, directory)
        if "policy" in run.parts:
            self._policy(run, directory, record)
        elif "algo" in run.parts:
            self._preferences(run, directory, record)
        else:
            self._language_model(run, directory, record)
        return True

    def _policy(self, run: Run, directory: Path, record: Mapping[str, Any]) -> None:
        run.policy.load(directory, run.device)
        summary, evaluations = judge(run, self.episodes, bool(record.get("constrained")))
        summary |= {key: record[key] for key in ("curve", "best", "env_steps", "wall_s")}
        summary["unbeaten"] = unbeaten(summary)
        write_json(run.directory / "summary.json", summary)
        write_report(summary, evaluations, run.directory, run.title)
        print_summary(summary, run.directory)

    def _language_model(self, run: Run, directory: Path, record: Mapping[str, Any]) -> None:
        run.lm.place(run.device)
        sampling = Sampling(self.max_tokens, temperature=0.0)
        base = judge_answers(run.lm, run.data, "test", self.rows, sampling)
        run.lm.load(directory)
        tuned = judge_answers(run.lm, run.data, "test", self.rows, sampling)
        summary = summarise(run, {**record, "base": asdict(base)}, tuned, self.rows) | {"wall_s": record["wall_s"]}
        write_json(run.directory / "summary.json", summary)
        print_tuning(summary, run.directory)

    def _preferences(self, run: Run, directory: Path, record: Mapping[str, Any]) -> None:
        run.lm.place(run.device)
        reference, test = run.lm.base(), run.preferences.preferences("test")
        reference.place(run.device)
        pairs = run.preference_tuning.prepare(run.lm, encode_pairs(run.lm, test, "truncate")[0])
        bench = Bench(run.preference_tuning, reference, pairs, with_prompts(test, self.rows), self.max_tokens, run.settings.seed)
        base = asdict(bench.judge(run.lm))
        run.lm.load(directory)
        summary = preference_summary(run, {**record, "base": base}, bench.judge(run.lm), {"test": len(pairs)}) | {"wall_s": record["wall_s"]}
        write_json(run.directory / "summary.json", summary)
        print_tuning(summary, run.directory)
