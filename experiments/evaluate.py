"""A finished run on the held-out splits: `experiment=evaluate checkpoint=DIR`."""

from __future__ import annotations

from pathlib import Path

from framework.checkpoint import open_checkpoint
from framework.config import Count
from framework.errors import ConfigError
from framework.experiment import Experiment, Run, write_json
from framework.report import write_report
from framework.summary import judge, print_summary


class Evaluate(Experiment):
    """Loads a policy and judges it as training does at its end.

    Args:
        episodes: of each split.
    """

    def __init__(self, episodes: Count) -> None:
        self.episodes = episodes

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        if run.settings.checkpoint is None:
            raise ConfigError("checkpoint", "experiment=evaluate needs one; give checkpoint=DIR, a run directory or a checkpoint in it")
        directory, record = open_checkpoint(Path(run.settings.checkpoint))
        run.check_against(record, directory)
        run.policy.load(directory, run.device)
        summary, evaluations = judge(run, self.episodes)
        summary |= {key: record[key] for key in ("before", "best", "env_steps", "wall_s")}
        write_json(run.directory / "summary.json", summary)
        write_report(summary, evaluations, run.directory, run.title)
        print_summary(summary, run.directory)
        return True
