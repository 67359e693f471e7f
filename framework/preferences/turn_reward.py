"""Rewards fitted to preferences on a reader of lines: what `reward=bradley_terry` and `reward=ensemble` have in common."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from framework.config import Count, NonNegative, differences, flat
from framework.errors import CheckpointError
from framework.interfaces import Learning
from framework.lm.encoder import LineEncoder
from framework.preferences.fitted_reward import ACTS, RECORD, Backward, FittedReward, Fitting, asked_of, not_fitted, pair_losses
from framework.preferences.trajectories import Turn, turns_of
from framework.preferences.turn_network import Imitation, Shape, TurnNetwork
from framework.types import Floats, Ints, Preference

_WEIGHTS = "reward.safetensors"
_REMEMBERED = 4_096  # turns from which distances are measured, of those that it was fitted to


@dataclass(frozen=True)
class Pairs:
    """Preferences as numbers; N pairs, T distinct turns."""

    turns: Sequence[Ints]  # [T] as `TurnNetwork.numbers` gives them
    trajectories: Sequence[tuple[Ints, Ints]]  # [N] which turns are of the chosen and which of the rejected trajectory
    labels: Tensor  # [N]
    margins: Tensor  # [N] in units of scores
    weights: Tensor  # [N, M] how often each member has drawn a pair


class TurnReward(FittedReward):
    """Members of one shape; a subclass says what becomes of their scores.

    Args:
        reader: of lines; its adapter, if it has one, learns too.
        path: see `FittedReward`, as is fitting.
        shape: of each member.
        fitting: how.
        imitation: weight of telling the chosen sides' acts from what was observed, see `Imitation`.
        cache: lines whose features are kept.
    """

    signs = ("distance",)  # of a turn from those that it was fitted to, see `TurnNetwork.judge`
    bootstrap = False  # whether each member has pairs of its own, drawn with replacement

    def __init__(self, reader: LineEncoder, path: str | None, shape: Shape, fitting: Fitting, imitation: NonNegative, cache: Count) -> None:
        super().__init__(path, fitting)
        if not isinstance(reader, LineEncoder):
            raise ValueError(f"reader: {type(reader).__name__} is no reader of lines; choose another: +lm@reward.reader=minilm")
        self.reader, self.shape, self.imitation, self.cache = reader, shape, imitation, cache
        self._network: TurnNetwork | None = None
        self._fitted_to: list[Ints] = []

    def on(self, reader: LineEncoder) -> Self:
        """The same reward on another reader, not fitted."""
        twin = copy.copy(self)
        twin.reader, twin.path, twin._network, twin._known, twin._fitted_to = reader, None, None, {}, []
        return twin

    @property
    def fitted(self) -> bool:
        """See `FittedReward`."""
        return self._network is not None

    def begin(self, preferences: Sequence[Preference], run: Learning) -> tuple[Sequence[nn.Parameter], Backward]:
        """See `FittedReward`: every member has its own loss on its own pairs; the features of a minibatch's lines are shared."""
        turns = list(dict.fromkeys(turn for pair in preferences for side in (pair.chosen, pair.rejected) for turn in turns_of(side)))
        self.reader.place(run.device)
        self.reader.fit(sorted({line for observation, act in turns for line in (*observation.split("\n"), act) if line}))
        network = self._assemble(run.device)
        pairs = self._pairs(preferences, turns, run)
        few = np.random.default_rng(run.seed).permutation(len(turns))[:_REMEMBERED]
        self._fitted_to = [pairs.turns[turn] for turn in few]

        lesson = Imitation(self.members, self.shape.width).to(run.device) if self.imitation else None

        def backward(rows: Ints) -> float:
            network.train()
            losses = preference_losses(network, pairs, rows, self.fitting.centring, lesson, self.imitation)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            return losses.mean().item()

        learning = (*network.parameters(), *(lesson.parameters() if lesson else ()))
        return [parameter for parameter in learning if parameter.requires_grad], backward

    def read(self, turns: Sequence[Turn]) -> Floats:
        """See `FittedReward`."""
        network = self._fitted()
        if network.training:
            network.eval()
        scores, distances = network.judge(network.numbers(turns))
        return torch.cat([scores, distances[:, None]], dim=1).double().cpu().numpy()

    def save(self, directory: Path) -> None:
        """Writes `reward.safetensors` (members, the reader's statistics and its adapter, not its frozen weights) and `reward.json`."""
        self.remember()
        state = {key: value.detach().cpu().contiguous() for key, value in self._fitted().state_dict().items()}
        save_file(state, directory / _WEIGHTS)
        (directory / RECORD).write_text(json.dumps({**self._record(), ACTS: self.acts}, indent=1), encoding="utf-8")

    def load(self, directory: Path, device: torch.device) -> None:
        """Restores what `save` wrote.

        Raises:
            CheckpointError: there is none, or it was fitted on another reader or is of another shape; each setting is named.
        """
        try:
            record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
            found = load_file(directory / _WEIGHTS, device=str(device))
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"{directory}: holds no fitted reward ({error}); give the directory of a run of experiment=fit_reward") from error
        words = record.pop(ACTS, "names") == "words"
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
        self.words = words
        self._known.clear()
        self._fitted_to = []  # numbers of the former network's lines

    def remember(self) -> None:
        """See `FittedReward`."""
        if self._fitted_to:
            self._fitted().eval().remember(self._fitted_to)
            self._known.clear()

    def _fitted(self) -> TurnNetwork:
        if self._network is None:
            raise not_fitted()
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

        def trajectory(pair: Preference, side: str) -> Ints:
            return np.array([place[turn] for turn in turns_of(getattr(pair, side))], dtype=np.int64)

        count, rng = len(preferences), np.random.default_rng(run.seed)
        weights = np.ones((count, self.members))
        if self.bootstrap:
            weights = np.stack([np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(self.members)], axis=1)
        labels, margins = asked_of(preferences, self.fitting.margin, run.device)
        trajectories = [(trajectory(pair, "chosen"), trajectory(pair, "rejected")) for pair in preferences]
        return Pairs(self._fitted().numbers(turns), trajectories, labels, margins, torch.as_tensor(weights, dtype=torch.float32, device=run.device))


def preference_losses(network: TurnNetwork, pairs: Pairs, rows: Ints, centring: float, lesson: Imitation | None = None, imitation: float = 0.0) -> Tensor:
    """Each member's mean of `pair_losses` over its share of some pairs, and that of the lesson over their chosen sides' turns, `[M]`."""
    sides = [pairs.trajectories[row][side] for side in range(2) for row in rows]
    owners = np.repeat(np.arange(len(sides)), [len(side) for side in sides])
    distinct, which = np.unique(np.concatenate(sides), return_inverse=True)
    seen = network.see([pairs.turns[turn] for turn in distinct])
    scores = network(seen)
    device, members = scores.device, scores.shape[1]
    trajectories = scores.new_zeros(len(sides), members).index_add(0, torch.as_tensor(owners, device=device), scores[torch.as_tensor(which, device=device)])
    chosen, rejected = (side.flatten() for side in trajectories.chunk(2))
    kept = torch.as_tensor(rows, device=device)
    labels, margins = (part[kept].repeat_interleave(members) for part in (pairs.labels, pairs.margins))
    losses = pair_losses(chosen, rejected, labels, margins, centring)
    weights = pairs.weights[kept]
    means = weighted_mean(losses.view(-1, members), weights)
    if lesson is None:
        return means
    ours = owners < len(rows)  # of the chosen sides, which stand first
    return means + imitation * weighted_mean(lesson(seen)[torch.as_tensor(which[ours], device=device)], weights[torch.as_tensor(owners[ours], device=device)])


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Each member's, `[M]` of `[N, M]`."""
    return (weights * losses).sum(dim=0) / weights.sum(dim=0).clamp(min=1)


def described(reader: LineEncoder) -> dict[str, Any]:
    """What a reader is made from, where it changes what is read: its class and settings."""
    settings = {key: value for key, value in vars(reader).items() if key in _SETTINGS}
    adapter = settings.pop("adapter", None)
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    if plain.get("weights") != "random":
        plain.pop("seed", None)
    return {"kind": type(reader).__name__, **plain, "adapter": None if adapter is None else vars(adapter)}


_SETTINGS = ("path", "package", "layers", "sha256", "weights", "seed", "adapter", "max_features")
