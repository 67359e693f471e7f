"""Estimators of the policy gradient against the exact one: `experiment=exact_gradient`.

In a quarry of some ten states, for a table of logits and for a language model that picks acts by how likely their names are: the exact
return, values, KL and policy gradient, and from them the bias and the variance of every estimator, all with as many episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from torch import Tensor

from framework.config import Count, Positive
from framework.errors import ConfigError
from framework.experiment import Experiment, Run, write_json
from framework.gradients.estimators import Batches, menu, sample
from framework.gradients.exact import Tables, accuracy, coordinates, scores, solve
from framework.gradients.quarry import Quarry
from framework.interfaces import Algorithm, LanguageModel, Tuning
from framework.policies.likelihood import LikelihoodPolicy
from framework.progress import progress
from framework.reports.tables.gradients import Found, draw, note, plain, printable, sheet
from framework.types import Tokens, Utterance


class ExactGradient(Experiment):
    """Prints a table for each policy; writes `table.md`, `table.json` and `table.png`.

    Args:
        layers: of the quarry.
        n_groups: situations a batch.
        group_size: episodes of each; estimators that need no groups have as many episodes, each with a situation of its own.
        batches: estimates of each kind.
        sigmas: from which a bias is told from none.
        normalize: see `LikelihoodPolicy`.
        temperature: see `LikelihoodPolicy`.
    """

    def __init__(
        self,
        layers: Annotated[int, Field(ge=1, le=8)],
        n_groups: Count,
        group_size: Annotated[int, Field(ge=2)],
        batches: Annotated[int, Field(ge=100)],
        sigmas: Positive,
        normalize: Literal["none", "tokens", "words"],
        temperature: Positive,
    ) -> None:
        self.domain, self.n_groups, self.group_size, self.batches = Quarry(layers), n_groups, group_size, batches
        self.sigmas, self.normalize, self.temperature = sigmas, normalize, temperature

    def needs(self, algorithm: Algorithm | Tuning) -> Mapping[str, type]:
        """See `Experiment`."""
        return {"lm": LanguageModel}

    def run(self, run: Run) -> bool:
        """See `Experiment`; what holds is that no estimator that should have no bias has one."""
        tables, generator = Tables.of(self.domain.model_of("train")), torch.Generator().manual_seed(run.settings.seed)
        logits = torch.randn(tables.mask.shape, dtype=torch.float64, generator=generator).requires_grad_()
        spoken = LikelihoodPolicy(run.lm, self.domain, self.normalize, self.temperature, critic_width=1)
        print("scores of the language model's acts", flush=True)
        spoken.prepare((), run.device)
        if not run.lm.parameters():
            raise ConfigError("adapter", "nothing of the language model learns, so it has no policy gradient; use adapter=lora or adapter=full")
        policies = {
            "a table of logits": scores(torch.where(tables.mask, logits, -torch.inf).log_softmax(-1), tables.mask, [logits]),
            f"lm={run.names['lm']} ({run.names['adapter']})": scores(rows(spoken, self.domain, tables), tables.mask, run.lm.parameters()),
        }
        found = [self._measure(name, tables, logprobs, coordinates(gradients), generator) for name, (logprobs, gradients) in policies.items()]
        self._show(found, run)
        return all(row.verdict(self.sigmas) == "none" for part in found for estimator, row in part.rows if estimator.unbiased)

    def _measure(self, name: str, tables: Tables, logprobs: Tensor, axes: Tensor, generator: torch.Generator) -> Found:
        """Every estimator on the same episodes; those that are for groups have theirs, the others theirs."""
        truth, size, measured = solve(tables, logprobs), self.n_groups * self.group_size, []
        exact, estimators = truth.coefficients.flatten() @ axes, menu(truth)
        batches = {
            grouped: Batches(sample(tables, logprobs, self.batches * n, size // n, generator), size, (len(tables.states), len(self.domain.acts)))
            for grouped, n in ((True, self.n_groups), (False, size))
        }
        with progress(name, len(estimators) * self.batches) as tell:
            for number, estimator in enumerate(estimators, start=1):
                measured.append((estimator, accuracy(estimator.coefficients(batches[estimator.grouped]) @ axes, exact)))
                tell(number * self.batches, estimator.name)
        best = self.domain.oracle("train").references["optimum"].value
        return Found(name, truth, best, float(truth.kl(tables.random())), float(exact.norm()), size, measured)

    def _show(self, found: Sequence[Found], run: Run) -> None:
        """Screen and files."""
        sheets, told = [sheet(part, self.sigmas) for part in found], note(found[0].episodes, self.batches, self.sigmas)
        (run.directory / "table.md").write_text("\n".join([*(each.markdown() for each in sheets), told, ""]), encoding="utf-8")
        write_json(run.directory / "table.json", [plain(part, self.sigmas) for part in found])
        draw(found, self.sigmas, run.directory / "table.png")
        console = Console(width=160, markup=False, highlight=False)
        console.print(*(printable(each) for each in sheets), told, f"table: {run.directory / 'table.md'}, table.json, table.png", sep="\n")


def rows(policy: LikelihoodPolicy, domain: Quarry, tables: Tables) -> Iterator[Tensor]:
    """For each state in turn, a policy's differentiable log-probabilities of all acts, `[A]`; -inf where not allowed."""
    model, nothing = domain.model(False), Tokens(np.zeros(0, np.int64), np.zeros(0))
    for state, mask in zip(tables.states, tables.mask.numpy(), strict=True):
        acts = np.flatnonzero(mask).tolist()
        (part,) = policy.score([Utterance(model.told(state), mask, act, policy.names[act], nothing, np.zeros(1), "stop") for act in acts])
        yield part.logprobs.new_full((len(mask),), -torch.inf).index_put((torch.tensor(acts, device=part.draws.device)[part.draws],), part.logprobs)
