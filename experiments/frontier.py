"""The exact frontier of gold and KL in a finite world, and what climbing other rewards earns beneath it: `experiment=frontier`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from framework.config import Count, Positive
from framework.errors import ConfigError
from framework.experiment import Experiment, Run
from framework.interfaces import Algorithm, Domain, Tuning
from framework.oracles.frontier import Path, climb, fitted
from framework.progress import progress
from framework.reports.report import write_sheet
from framework.reports.tables.frontier import Paths, draw, plain, sheet
from framework.types import Floats
from framework.worlds.finite import FiniteOracle


class Frontier(Experiment):
    """Prints a table; writes `table.md`, `table.json`, `learning_curve.png` and `report.html`.

    Args:
        reference: policy from which KL is counted; one that draws lots.
        acts: of the reference, from which rewards are learnt.
        seeds: of such acts.
        budgets: KL of an episode, nats, at which the table tells what is earned.
    """

    def __init__(self, reference: str, acts: tuple[Count, ...], seeds: Count, budgets: tuple[Positive, ...]) -> None:
        self.reference, self.acts, self.seeds, self.budgets = reference, acts, seeds, budgets

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        return {"domain": Domain}

    def run(self, run: Run) -> bool:
        """See `Experiment`."""
        oracle = run.domain.oracle("validation")
        if not isinstance(oracle, FiniteOracle):
            raise ConfigError("domain.environment", f"the states of {run.domain.environment} are not listed; take a world that lists them")
        if (reference := oracle.policies.get(self.reference)) is None or not ((reference > 0) & (reference < 1)).any():
            drawing = ", ".join(name for name, policy in oracle.policies.items() if ((policy > 0) & (policy < 1)).any())
            raise ConfigError("experiment.reference", f"{self.reference!r} is no policy that draws lots here; these do: {drawing}")
        found: dict[str, list[Path]] = {}
        with progress("paths", 2 + len(self.acts) * self.seeds) as tell:
            for number, (name, reward) in enumerate(self._rewards(oracle, reference, run.settings.seed), start=1):
                found.setdefault(name, []).append(climb(oracle.process, reward, reference))
                tell(number, name)
        title = f"{run.domain.name}/{run.domain.environment}: gold within a KL of {self.reference}"
        self._show(Paths(title, oracle.references["optimum"].value, self.budgets, found), run)
        return True

    def _rewards(self, oracle: FiniteOracle, reference: Floats, seed: int) -> Iterator[tuple[str, Floats]]:
        """What is climbed."""
        yield "gold", oracle.process.reward
        yield "proxy", oracle.process.proxy
        for acts in self.acts:
            for number in range(self.seeds):
                yield f"learnt from {acts:,} acts", fitted(oracle.process, reference, acts, np.random.default_rng((seed + number, acts)))

    def _show(self, paths: Paths, run: Run) -> None:
        """Screen and files."""
        draw(paths, run.directory / "learning_curve.png")
        lead, curve = "What is earned as a policy moves away from the one it began with.", "Gold and the climbed reward against the square root of KL"
        write_sheet(run, sheet(paths), paths.note, plain(paths), paths.title, lead, curve)
