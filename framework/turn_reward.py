"""Rewards fitted to preferences, turn by turn: what `reward=bradley_terry` and `reward=ensemble` have in common.

A course is worth the sum of its turns, and the better of two is likelier to be chosen: P(chosen ≻ rejected) = σ(s_chosen − s_rejected)
(Bradley and Terry, 1952; of courses: Christiano et al., 2017, arXiv:1706.03741).
"""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from framework.checkpoint import open_checkpoint
from framework.config import Count, NonNegative, Positive, differences, flat
from framework.courses import Turn, turns_of
from framework.errors import CheckpointError, ConfigError, DataError, TrainingError
from framework.interfaces import LearnedReward, Learning
from framework.lm.encoder import LineEncoder
from framework.losses import bradley_terry
from framework.turn_network import Shape, TurnNetwork
from framework.types import Floats, Ints, Preference, Step

_WEIGHTS, _RECORD = "reward.safetensors", "reward.json"
_KEPT = 200_000  # turns whose scores are kept
_TOGETHER = 8_192  # turns scored in one pass


@dataclass(frozen=True)
class Fitting:
    """How a reward is fitted.

    Attributes:
        epochs: passes over the pairs, if nothing ends them sooner.
        batch_size: pairs a step.
        learning_rate: at the start; falls linearly to zero.
        weight_decay: of AdamW.
        centring: keeps scores near 0 (see `framework.losses.bradley_terry`), where only their differences are known.
        margin: how much of a pair's known margin is asked for beyond a mere difference; 0: the truth is not looked at.
    """

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: NonNegative
    centring: NonNegative
    margin: NonNegative


@dataclass(frozen=True)
class Pairs:
    """Preferences as numbers; N pairs, T distinct turns."""

    turns: Sequence[Ints]  # [T] as `TurnNetwork.numbers` gives them
    courses: Sequence[tuple[Ints, Ints]]  # [N] which turns are of the chosen and which of the rejected course
    labels: Tensor  # [N]
    margins: Tensor  # [N] in units of scores
    weights: Tensor  # [N, M] how often each member has drawn a pair


class TurnReward(LearnedReward):
    """M members of one shape, fitted side by side; a subclass says what becomes of their scores.

    Args:
        reader: of lines; its adapter, if it has one, learns too.
        path: of a fitted reward, which `prepare` loads; None while there is none.
        shape: of each member.
        fitting: how.
        cache: lines whose features are kept.
    """

    members = 1
    bootstrap = False  # whether each member has pairs of its own, drawn with replacement

    def __init__(self, reader: LineEncoder, path: str | None, shape: Shape, fitting: Fitting, cache: Count) -> None:
        if not isinstance(reader, LineEncoder):
            raise ValueError(f"reader: {type(reader).__name__} is no reader of lines; choose another: +lm@reward.reader=minilm")
        self.reader, self.path, self.shape, self.fitting, self.cache = reader, path, shape, fitting, cache
        self._network: TurnNetwork | None = None
        self._known: dict[Turn, Floats] = {}

    @abstractmethod
    def aggregate(self, scores: Floats) -> Floats:
        """One score a turn, `[T]`, of the members' `[T, M]`."""

    def on(self, reader: LineEncoder) -> Self:
        """The same reward on another reader, not fitted."""
        twin = copy.copy(self)
        twin.reader, twin.path, twin._network, twin._known = reader, None, None, {}
        return twin

    def steps(self, pairs: int) -> int:
        """Updates of a whole fit."""
        return self.fitting.epochs * max(1, pairs // self.fitting.batch_size)

    def prepare(self, observations: Sequence[str]) -> None:
        """Loads what was fitted, onto the processor: one turn at a time is soonest scored there.

        Raises:
            ConfigError: there is nothing to load.
            CheckpointError: it cannot be used here.
        """
        if self.path is None and self._network is None:
            raise ConfigError("reward.path", "must be given: the directory of a fitted reward, as experiment=fit_reward leaves it")
        if self.path is not None:
            self.load(open_checkpoint(Path(self.path).expanduser())[0], torch.device("cpu"))

    def score(self, turns: Sequence[Step]) -> Floats:
        """See `RewardModel`; a turn met before costs a look-up."""
        return self.aggregate(self.member_scores([(turn.observation, turn.act) for turn in turns]))

    @torch.no_grad()
    def member_scores(self, turns: Sequence[Turn]) -> Floats:
        """What each member gives, `[T, M]`."""
        network = self._fitted()
        if network.training:
            network.eval()
        if len(self._known) > _KEPT:
            self._known.clear()
        new = list(dict.fromkeys(turn for turn in turns if turn not in self._known))
        for first in range(0, len(new), _TOGETHER):
            part = new[first : first + _TOGETHER]
            scores = network(network.numbers(part)).double().cpu().numpy()
            self._known.update(zip(part, scores, strict=True))
        return np.array([self._known[turn] for turn in turns]).reshape(len(turns), self.members)

    def fit(self, preferences: Sequence[Preference], run: Learning) -> None:
        """See `LearnedReward`.

        Raises:
            DataError: there are no pairs.
            TrainingError: the loss is no number.
        """
        if not preferences:
            raise DataError("preferences: there are none to fit a reward to; give more rows")
        with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
            torch.manual_seed(run.seed)
            turns = list(dict.fromkeys(turn for pair in preferences for side in (pair.chosen, pair.rejected) for turn in turns_of(side)))
            self.reader.place(run.device)
            self.reader.fit(sorted({line for observation, act in turns for line in (*observation.split("\n"), act) if line}))
            self._assemble(run.device)
            for step, metrics in self._descend(self._pairs(preferences, turns, run), run):
                self._known.clear()
                if not run.progress(step, metrics):
                    break
        self._known.clear()
        self._fitted().eval()

    def save(self, directory: Path) -> None:
        """Writes `reward.safetensors` (members, the reader's statistics and its adapter, not its frozen weights) and `reward.json`."""
        state = {key: value.detach().cpu().contiguous() for key, value in self._fitted().state_dict().items()}
        save_file(state, directory / _WEIGHTS)
        (directory / _RECORD).write_text(json.dumps(self._record(), indent=1), encoding="utf-8")

    def load(self, directory: Path, device: torch.device) -> None:
        """Restores what `save` wrote.

        Raises:
            CheckpointError: there is none, or it was fitted on another reader or is of another shape; each setting is named.
        """
        try:
            record = json.loads((directory / _RECORD).read_text(encoding="utf-8"))
            found = load_file(directory / _WEIGHTS, device=str(device))
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"{directory}: holds no fitted reward ({error}); give the directory of a run of experiment=fit_reward") from error
        if told := differences(flat(self._record()), flat(record)):
            remedy = "Choose the reward as it was fitted; a reader of its own is given by +lm@reward.reader=NAME"
            raise CheckpointError(f"{directory}: a reward of another configuration: {told}. {remedy}")
        self.reader.place(device)
        network = self._assemble(device)
        try:
            lacking, strange = network.load_state_dict(found, strict=False)
        except RuntimeError as error:
            raise CheckpointError(f"{directory}: its weights do not fit ({str(error).splitlines()[-1].strip()})") from error
        if lacking := [key for key in (*lacking, *strange) if key in network.state_dict() or key in found]:
            raise CheckpointError(f"{directory}: its weights do not fit: {', '.join(lacking[:4])}")
        self._known.clear()

    def _fitted(self) -> TurnNetwork:
        if self._network is None:
            raise ConfigError("reward", "is not fitted yet; fit it, or load one that is")
        return self._network

    def _assemble(self, device: torch.device) -> TurnNetwork:
        self._network = TurnNetwork(self.reader, self.members, self.shape, self.cache).to(device).eval()
        return self._network

    def _record(self) -> dict[str, Any]:
        """What another reward must share with this one for its weights to mean the same."""
        shape = {key: value for key, value in asdict(self.shape).items() if key != "dropout"}
        return {"members": self.members, "shape": shape, "reader": described(self.reader)}

    def _pairs(self, preferences: Sequence[Preference], turns: Sequence[Turn], run: Learning) -> Pairs:
        place = {turn: number for number, turn in enumerate(turns)}

        def course(pair: Preference, side: str) -> Ints:
            return np.array([place[turn] for turn in turns_of(getattr(pair, side))], dtype=np.int64)

        count, rng = len(preferences), np.random.default_rng(run.seed)
        weights = np.ones((count, self.members))
        if self.bootstrap:
            weights = np.stack([np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(self.members)], axis=1)
        margins = self.fitting.margin * np.nan_to_num([max(0.0, pair.margin) for pair in preferences])
        tensors = (torch.as_tensor(np.asarray(part), dtype=torch.float32, device=run.device) for part in ([p.label for p in preferences], margins, weights))
        courses = [(course(pair, "chosen"), course(pair, "rejected")) for pair in preferences]
        return Pairs(self._fitted().numbers(turns), courses, *tensors)

    def _descend(self, pairs: Pairs, run: Learning) -> Iterator[tuple[int, dict[str, float]]]:
        """Every member its own loss on its own pairs, step by step; the features of a minibatch's lines are shared."""
        network, total = self._fitted(), self.steps(len(pairs.courses))
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, self.fitting.learning_rate, weight_decay=self.fitting.weight_decay)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=total)
        for step, rows in enumerate(_batches(len(pairs.courses), self.fitting.batch_size, total, run.seed), start=1):
            network.train()
            losses = preference_losses(network, pairs, rows, self.fitting.centring)
            loss = losses.mean()
            if not loss.isfinite():
                raise TrainingError("the reward's loss is no number any more, and nothing is kept of this update. Try a lower reward.fitting.learning_rate")
            optimizer.zero_grad()
            losses.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            yield step, {"train/loss": loss.item()}


def preference_losses(network: TurnNetwork, pairs: Pairs, rows: Ints, centring: float) -> Tensor:
    """Each member's mean loss over its share of some pairs, `[M]`: cross-entropy of the label and σ(s_chosen − s_rejected − margin), and centring."""
    sides = [pairs.courses[row][side] for side in range(2) for row in rows]
    owners = np.repeat(np.arange(len(sides)), [len(side) for side in sides])
    distinct, which = np.unique(np.concatenate(sides), return_inverse=True)
    scores = network([pairs.turns[turn] for turn in distinct])
    device, members = scores.device, scores.shape[1]
    courses = scores.new_zeros(len(sides), members).index_add(0, torch.as_tensor(owners, device=device), scores[torch.as_tensor(which, device=device)])
    chosen, rejected = (side.flatten() for side in courses.chunk(2))
    kept = torch.as_tensor(rows, device=device)
    labels, margins = (part[kept].repeat_interleave(members) for part in (pairs.labels, pairs.margins))
    losses = labels * bradley_terry(chosen, rejected, margins, centring) + (1 - labels) * bradley_terry(rejected, chosen, -margins, centring)
    weights = pairs.weights[kept]
    means: Tensor = (weights * losses.view(-1, members)).sum(dim=0) / weights.sum(dim=0).clamp(min=1)
    return means


def described(reader: LineEncoder) -> dict[str, Any]:
    """What a reader is made from, where it changes what is read: its class and settings."""
    settings = {key: value for key, value in vars(reader).items() if key in _SETTINGS}
    adapter = settings.pop("adapter", None)
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    if plain.get("weights") != "random":
        plain.pop("seed", None)
    return {"kind": type(reader).__name__, **plain, "adapter": None if adapter is None else vars(adapter)}


_SETTINGS = ("path", "package", "layers", "sha256", "weights", "seed", "adapter", "max_features")


def _batches(count: int, size: int, steps: int, seed: int) -> Iterator[Ints]:
    """Whole batches of fresh permutations, as many as there are steps; of fewer pairs than a batch holds, all of them."""
    rng, made, size = np.random.default_rng(seed), 0, min(size, count)
    while made < steps:
        order = rng.permutation(count)
        for first in range(0, count - count % size, size):
            if made < steps:
                made += 1
                yield order[first : first + size]
