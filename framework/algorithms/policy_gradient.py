"""What policy gradients in words share: the optimiser, the model as it was, numbers to report, interruption and going on."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from framework.algorithms.diagnosis import Diagnosis
from framework.algorithms.optimizer_state import optimizer_tensors, restore_optimizer
from framework.algorithms.turns import Batch, play
from framework.config import Count, NonNegative, NonNegativeCount, Positive
from framework.errors import TrainingError
from framework.interfaces import Algorithm, Learning, Policy, SpeakingPolicy, World
from framework.losses import k1, k3
from framework.seeding import episode_seed
from framework.types import Scores, Utterance

_TENSORS, _PLAIN, _REFERENCE = "training.safetensors", "training.json", "reference."
_ADAPT, _AT_MOST = 0.1, 0.2  # how far a batch moves an adaptive coefficient, and the error that counts (Ziegler et al., 2019)


class Reference:
    """A language model as it was: what learns is kept, and put back in its place for a while to read by it.

    With a low-rank adapter that has learnt nothing yet this is the model without it, at the price of the adapter's size.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters, self.kept = parameters, [parameter.detach().clone() for parameter in parameters]

    def logprobs(self, policy: SpeakingPolicy, said: Sequence[Utterance]) -> Tensor:
        """Of every draw, `[N]`, as the model was."""
        with self._in_place():
            return policy.logprobs(said)

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        now = [parameter.data for parameter in self.parameters]
        try:
            for parameter, kept in zip(self.parameters, self.kept, strict=True):
                parameter.data = kept
            yield
        finally:
            for parameter, data in zip(self.parameters, now, strict=True):
                parameter.data = data


@dataclass(kw_only=True)
class PolicyGradient(Algorithm):
    """Plays episodes, learns from their turns, and so on.

    Attributes:
        total_steps: turns of a run, in all its worlds; the last episodes are played to their ends. 0: the policy is judged as it begins.
        learning_rate: of AdamW without decay, at the start.
        learning_rate_end: at the end, reached linearly; null keeps the first. What learns beside the language model slows down with it.
        max_grad_norm: to which gradients are clipped, each group of parameters by itself.
        kl_coef: price of a nat by which the policy leaves the one it began as.
        kl_target: nats a turn that are aimed at by moving the price (Ziegler et al., 2019); null keeps it.
    """

    improves = SpeakingPolicy

    total_steps: NonNegativeCount
    learning_rate: Positive
    learning_rate_end: NonNegative | None
    max_grad_norm: Positive
    kl_coef: NonNegative
    kl_target: Positive | None

    _optimizer: torch.optim.Optimizer | None = field(default=None, init=False, repr=False)
    _reference: Reference | None = field(default=None, init=False, repr=False)
    _counters: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _diagnosis: Diagnosis = field(default_factory=Diagnosis, init=False, repr=False)
    _metrics: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _sums: dict[str, float] = field(default_factory=lambda: defaultdict(float), init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kl_target is not None and not self.kl_coef:
            raise ValueError("kl_target moves kl_coef, which must be above 0 to begin with")

    @property
    def steps(self) -> int:
        """Turns taken."""
        return int(self._counters["steps"])

    @property
    def pace(self) -> float:
        """What learning rates are multiplied with, from 1 at the start."""
        end = self.learning_rate if self.learning_rate_end is None else self.learning_rate_end
        return 1 + (end / self.learning_rate - 1) * min(1.0, self.steps / self.total_steps)

    def begin(self, policy: SpeakingPolicy, run: Learning) -> None:
        """An optimiser, the model as it is now for reference, and, in a resumed run, all as it was."""
        learning = policy.lm.parameters()
        if not learning:
            raise TrainingError("nothing of the language model learns; use adapter=lora or adapter=full")
        groups = [{"params": learning, "lr": self.learning_rate}, *self.beside(policy)]
        self._optimizer = torch.optim.AdamW([{**group, "first_lr": group["lr"]} for group in groups], weight_decay=0.0, fused=True)
        self._reference = Reference(learning) if self.kl_coef else None
        self._counters = {"steps": 0, "batches": 0, "kl_coef": self.kl_coef, "warnings": []}
        self._diagnosis, self._metrics, self._sums = Diagnosis(), {}, defaultdict(float)
        if run.resume is not None:
            self._restore(run.resume)

    def beside(self, policy: SpeakingPolicy) -> list[dict[str, Any]]:
        """What learns beside the language model, as groups of parameters for the optimiser with rates (`lr`) of their own."""
        return []

    def goes_on(self, run: Learning) -> bool:
        """Tells of the last batch, and asks whether there is to be another."""
        return run.progress(self.steps, self._metrics) and self.steps < self.total_steps

    def seeds(self, seed: int, n: int, times: int = 1) -> list[int]:
        """Of the next training episodes: `n` situations, each so many times."""
        drawn = np.random.default_rng((seed, self._counters["batches"])).integers(2**27, size=n)
        return [episode_seed("train", int(number)) for number in drawn for _ in range(times)]

    def reference(self, policy: SpeakingPolicy, batch: Batch) -> Tensor:
        """Log-probabilities of all draws under the policy as it began, `[N]`; moves the price of leaving it."""
        if self._reference is None:
            return batch.logprobs
        found = self._reference.logprobs(policy, batch.said)
        kl = float((batch.logprobs - found).sum()) / len(batch.said)
        self._sums |= {"train/kl": kl, "train/kl_coef": self._counters["kl_coef"]}
        if self.kl_target is not None:
            self._counters["kl_coef"] *= 1 + _ADAPT * min(max(kl / self.kl_target - 1, -_AT_MOST), _AT_MOST)
        return found

    def price(self, batch: Batch, reference: Tensor) -> Tensor:
        """What each turn pays for leaving the policy that was, `[B]`: `kl_coef` a nat, estimated by k1 on what was said."""
        nats = torch.zeros_like(batch.rewards).index_add(0, batch.turns, k1(batch.logprobs, reference))
        return float(self._counters["kl_coef"]) * nats

    def update(self) -> None:
        """One step of the optimiser along the gradients there are.

        Raises:
            TrainingError: the gradients are no numbers.
        """
        assert self._optimizer is not None
        norms = [float(torch.nn.utils.clip_grad_norm_(group["params"], self.max_grad_norm)) for group in self._optimizer.param_groups]
        if wrong := [norm for norm in norms if not math.isfinite(norm)]:
            raise TrainingError(f"the gradient became {wrong[0]} after {self.steps} turns; nothing is kept of it. Try a lower algo.learning_rate")
        for group in self._optimizer.param_groups:
            group["lr"] = group["first_lr"] * self.pace
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._sums["train/grad_norm"] = norms[0]

    def forget(self) -> None:
        """Drops the gradients there are."""
        assert self._optimizer is not None
        self._optimizer.zero_grad()

    def watch(self, part: Scores, before: Tensor, loss: Tensor) -> None:
        """Adds a part of an update to what will be told: `before` are the log-probabilities when its draws were drawn, `[N]`."""
        now = part.logprobs.detach()
        if "draws" not in self._sums:  # nothing has been learnt yet from this batch
            self._sums["train/sampling_gap"] = float((now - before).abs().mean())
        self._sums["draws"] += len(now)
        self._sums["train/loss"] += float(loss.detach())
        self._sums["train/approx_kl"] += float(k3(before, now).sum())

    def account(self, batch: Batch, metrics: Mapping[str, float]) -> None:
        """Closes a batch: counts it, gathers what is to be told of it, and says what looks wrong.

        Raises:
            TrainingError: nothing can be learnt this way.
        """
        self._counters["steps"] += len(batch.said)
        self._counters["batches"] += 1
        sums, self._sums = dict(self._sums), defaultdict(float)
        draws = sums.pop("draws", 0.0)
        sums |= {"train/approx_kl": sums["train/approx_kl"] / draws} if draws else {}
        self._metrics = {
            "rollout/return": float(batch.totals.mean()),
            "rollout/length": len(batch.said) / len(batch.played),
            "rollout/draws": len(batch.logprobs) / len(batch.said),
            "rollout/entropy": -float(batch.logprobs.mean()),  # nats a draw, estimated by what was drawn
            "rollout/not_understood": float(np.mean([said.act < 0 for said in batch.said])),
            "rollout/cut_off": float(np.mean([said.finish_reason == "length" for said in batch.said])),
            "rollout/truncated": float(np.mean([episode.truncated for episode in batch.played])),
            **sums,
            **metrics,
        }
        for told in self._diagnosis.look(self._metrics):
            warning = f"after {self.steps:,} turns: {told}"
            self._counters["warnings"].append(warning)
            print(f"warning: {warning}", flush=True)

    def warnings(self) -> Sequence[str]:
        """See `Algorithm`."""
        return tuple(self._counters.get("warnings", ()))

    def save(self, directory: Path) -> None:
        """See `Algorithm`."""
        assert self._optimizer is not None
        kept = [] if self._reference is None else self._reference.kept
        tensors = {f"{_REFERENCE}{number}": value.cpu().contiguous() for number, value in enumerate(kept)}
        save_file({**optimizer_tensors(self._optimizer), **tensors, "rng": torch.get_rng_state()}, directory / _TENSORS)
        (directory / _PLAIN).write_text(json.dumps({"counters": self._counters, "diagnosis": self._diagnosis.state}), encoding="utf-8")

    def _restore(self, directory: Path) -> None:
        assert self._optimizer is not None
        tensors, plain = load_file(directory / _TENSORS), json.loads((directory / _PLAIN).read_text(encoding="utf-8"))
        restore_optimizer(self._optimizer, tensors)
        if self._reference is not None:
            for number, value in enumerate(self._reference.kept):
                value.copy_(tensors[f"{_REFERENCE}{number}"])
        torch.set_rng_state(tensors["rng"])
        self._counters, self._diagnosis = plain["counters"], Diagnosis(plain["diagnosis"])


@dataclass(kw_only=True)
class GroupedPolicyGradient(PolicyGradient):
    """Plays each situation several times, from the same seed, so that its episodes can be compared.

    Attributes:
        n_groups: situations a batch.
        group_size: episodes of each.
    """

    n_groups: Count
    group_size: Annotated[int, Field(ge=2)]

    def learn(self, policy: Policy, make_world: Callable[[], World], run: Learning) -> None:
        """See `Algorithm`."""
        assert isinstance(policy, SpeakingPolicy)
        self.begin(policy, run)
        worlds = [make_world() for _ in range(self.n_groups * self.group_size)]
        while self.goes_on(run):
            self.iterate(policy, worlds, run)

    def iterate(self, policy: SpeakingPolicy, worlds: Sequence[World], run: Learning) -> None:
        """Plays a batch of groups in so many worlds, and learns from it."""
        batch = Batch.of(play(policy, worlds, self.seeds(run.seed, self.n_groups, self.group_size)), run.device)
        self.improve(policy, batch)
        self.account(batch, batch.flat(self.group_size))

    @abstractmethod
    def improve(self, policy: SpeakingPolicy, batch: Batch) -> None:
        """Learns from a batch of groups, one after the other."""

    def budget(self, batch: Batch) -> int:
        """By what a turn's draws are divided: the most that a turn of the first batch had. Later batches' longest turns are chance."""
        return int(self._counters.setdefault("budget", int(torch.bincount(batch.turns).max())))

    def groups(self, batch: Batch) -> Tensor:
        """Which group each episode is of, `[E]`."""
        return torch.arange(len(batch.played), device=batch.rewards.device) // self.group_size
