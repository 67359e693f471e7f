"""`reward=sequence`: a reward that makes the preferences it was fitted to likely, read by a whole language model.

A turn is a short conversation, the observation said by the user and the act by the assistant, in the model's own chat template; its
score is a linear head, without bias, on the last hidden state at its last token. The model learns whole (`adapter=full`), by low-rank
updates (`adapter=lora`), or not at all under a head that does.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from framework.errors import CheckpointError, ConfigError
from framework.interfaces import Learning
from framework.lm.causal import CausalLM
from framework.lm.classifier import Classifier, pad_of, verify_classifier, write
from framework.preferences.fitted_reward import ACTS, RECORD, Backward, FittedReward, Fitting, asked_of, not_fitted, pair_losses
from framework.preferences.mahalanobis import distance, fitted_to
from framework.preferences.trajectories import Turn, turns_of
from framework.types import Conversation, Ends, Floats, Ints, Message, Preference, Tokens

_KIND = "sequence"
_FAMILIAR = "familiar.safetensors"
_REMEMBERED = 1_024  # turns from which distances are measured, of those that it was fitted to
_PROBE = [("the sun shines\nthere is wind", "stay"), ("the sun shines\nthere is wind", "go on")]


@dataclass(frozen=True)
class Pairs:
    """Preferences as a model reads them; N pairs, K: distinct turns of one of them."""

    turns: Sequence[Sequence[Tokens]]  # [N] of K each
    counts: Sequence[Tensor]  # [N] of [2, K]: how often its chosen and its rejected trajectory have each turn
    labels: Tensor  # [N]
    margins: Tensor  # [N] in units of scores


class SequenceReward(FittedReward):
    """Its score is the reward, in the unit in which a difference of 1 is chosen with odds of e to 1.

    Kept as a sequence classifier of Hugging Face, which gives the same scores for the same tokens. A turn that is longer than the model
    can read loses its beginning, and fitting says how many do; padding at its end, which may be the mark that ends a text, is not read.

    Args:
        path: of a fitted reward, which `prepare` loads; None while there is none.
        fitting: how.
        lm: what is fitted; None where a fitted reward is only used.
    """

    signs = ("distance",)  # of a turn from those that it was fitted to, see `framework.preferences.mahalanobis`

    def __init__(self, path: str | None, fitting: Fitting, lm: CausalLM | None = None) -> None:
        super().__init__(path, fitting)
        self.lm = lm
        self._parts: tuple[CausalLM, nn.Linear] | None = None  # fitted or loaded
        self._familiar: tuple[Tensor, Tensor] | None = None  # see `framework.preferences.mahalanobis`
        self._seen: Sequence[Tokens] = ()

    @property
    def fitted(self) -> bool:
        """See `FittedReward`."""
        return self._parts is not None

    @property
    def home(self) -> torch.device:
        """See `FittedReward`: a whole model is soonest read where models are."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def begin(self, preferences: Sequence[Preference], run: Learning) -> tuple[Sequence[nn.Parameter], Backward]:
        """See `FittedReward`.

        Raises:
            ConfigError: there is no model to fit, or it could not be kept as a sequence classifier.
        """
        if self.lm is None:
            raise ConfigError("lm", "a reward is fitted to a language model, and none is given; use lm=tiny, or another that generates")
        lm = copy.copy(self.lm)
        lm.place(run.device)
        head = nn.Linear(lm.width, 1, bias=False, device=run.device)
        nn.init.zeros_(head.weight)
        verify_classifier(lm, [turn_tokens(lm, turn) for turn in _PROBE])
        self._parts = lm, head
        turns, counts = zip(*(_told_apart(pair, run.device) for pair in preferences), strict=True)
        read = [[turn_tokens(lm, turn) for turn in each] for each in turns]
        if cut := sum(len(turn.ids) > lm.context for each in read for turn in each):
            print(f"warning: {cut:,} turns are longer than the {lm.context:,} tokens that the model can read, and lose their beginning", flush=True)
        pairs = Pairs([[fitting_in(lm, turn) for turn in each] for each in read], counts, *asked_of(preferences, self.fitting.margin, run.device))
        distinct = list({turn: tokens for each, laid in zip(turns, pairs.turns, strict=True) for turn, tokens in zip(each, laid, strict=True)}.values())
        few = np.random.default_rng(run.seed).permutation(len(distinct))[:_REMEMBERED]
        self._familiar, self._seen = None, [distinct[turn] for turn in few]
        learning, ends = lm.parameters(), ends_of(lm, pairs)
        return [*learning, *head.parameters()], lambda rows: backward(ends, head, pairs, rows, self.fitting.centring)

    def read(self, turns: Sequence[Turn]) -> Floats:
        """See `FittedReward`."""
        lm, head = self._fitted()
        states = torch.cat([part.states for part in lm.ends([[fitting_in(lm, turn_tokens(lm, turn))] for turn in turns])])
        away = torch.zeros(len(states), device=states.device) if self._familiar is None else distance(states, *self._familiar)
        return torch.cat([head(states), away[:, None]], dim=1).double().cpu().numpy()

    def aggregate(self, scores: Floats) -> Floats:
        """See `FittedReward`."""
        return scores[:, 0]

    def save(self, directory: Path) -> None:
        """Writes a sequence classifier, any adapter folded into its weights, for plain `from_pretrained`, `reward.json`, and what distances are measured from.

        It can be fitted further.
        """
        lm, head = self._fitted()
        self.remember()
        write(lm, head, directory)
        if self._familiar is not None:
            centre, precision = self._familiar
            save_file({"centre": centre, "precision": precision.contiguous()}, directory / _FAMILIAR)
        adapter = None if lm.adapter is None else {"kind": type(lm.adapter).__name__, **vars(lm.adapter)}
        (directory / RECORD).write_text(json.dumps({"kind": _KIND, "lm": lm.path, "adapter": adapter, ACTS: self.acts}, indent=1), encoding="utf-8")

    def load(self, directory: Path, device: torch.device) -> None:
        """Restores what `save` wrote, to be used; whatever was fitted before goes.

        Raises:
            CheckpointError: there is none, or it is of another kind, or damaged.
        """
        remedy = "give the directory of a run of experiment=fit_reward with reward=sequence"
        try:
            record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{directory}: holds no fitted reward ({error}); {remedy}") from error
        if not isinstance(record, dict) or record.get("kind") != _KIND:
            raise CheckpointError(f"{directory}: holds a reward of another kind, as its {RECORD} says; {remedy}, or choose the reward as it was fitted")
        settings = (self.lm.dtype, self.lm.pass_tokens) if self.lm else ()
        lm = Classifier(str(directory), *settings)
        try:
            lm.place(device)
            familiar = load_file(directory / _FAMILIAR, device=str(device))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"{directory}: holds no sequence classifier that can be read ({str(error).strip().splitlines()[0]}); {remedy}") from error
        self._parts, self.words = (lm, lm.head), record.get(ACTS) == "words"
        self._familiar, self._seen = (familiar["centre"], familiar["precision"]), ()
        self._known.clear()

    @torch.no_grad()
    def remember(self) -> None:
        """See `FittedReward`."""
        if self._seen:
            lm, _ = self._fitted()
            self._familiar = fitted_to(torch.cat([part.states for part in lm.ends([[turn] for turn in self._seen])]))
            self._known.clear()

    def _fitted(self) -> tuple[CausalLM, nn.Linear]:
        if self._parts is None:
            raise not_fitted()
        return self._parts


def turn_tokens(lm: CausalLM, turn: Turn) -> Tokens:
    """A turn as the model reads it: what comes before the act without weight, padding at the end left out."""
    observation, act = turn
    found = lm.encode(Conversation([Message("user", observation), Message("assistant", act)]))
    last = int(np.flatnonzero(found.ids != pad_of(lm)).max(initial=0)) + 1
    return Tokens(found.ids[:last], found.weights[:last])


def fitting_in(lm: CausalLM, turn: Tokens) -> Tokens:
    """A turn, or as much of its end as the model's context holds."""
    weights = turn.weights[-lm.context :].copy()
    weights[0] = 0.0  # nothing stands before it
    return Tokens(turn.ids[-lm.context :], weights)


def ends_of(lm: CausalLM, pairs: Pairs) -> Callable[[Ints], Iterable[Ends]]:
    """What gives the states of some pairs' turns, in parts; where nothing of the model learns, all are read once, now."""
    if lm.parameters():
        return lambda rows: lm.ends([pairs.turns[row] for row in rows])
    with torch.no_grad():
        states = torch.cat([part.states for part in lm.ends(pairs.turns)]).split([len(turns) for turns in pairs.turns])
    return lambda rows: [Ends(torch.cat([states[row] for row in rows]), torch.arange(len(rows)))]


def backward(ends: Callable[[Ints], Iterable[Ends]], head: nn.Linear, pairs: Pairs, rows: Ints, centring: float) -> float:
    """Sends the gradient of some pairs' mean loss backward, part by part, and returns that loss; how it falls into parts changes neither."""
    total = 0.0
    for part in ends(rows):
        here = rows[part.groups.cpu().numpy()]
        scores = head(part.states).squeeze(1).split([len(pairs.turns[row]) for row in here])
        chosen, rejected = torch.stack([pairs.counts[row] @ each for row, each in zip(here, scores, strict=True)]).unbind(1)
        kept = torch.as_tensor(here, device=chosen.device)
        mean = pair_losses(chosen, rejected, pairs.labels[kept], pairs.margins[kept], centring).sum() / len(rows)
        mean.backward()  # type: ignore[no-untyped-call]
        total += mean.item()
    return total


def _told_apart(pair: Preference, device: torch.device) -> tuple[list[Turn], Tensor]:
    """The distinct turns of both trajectories, `K`, and how often each trajectory has each of them, `[2, K]`."""
    sides = [turns_of(pair.chosen), turns_of(pair.rejected)]
    distinct = list(dict.fromkeys(turn for side in sides for turn in side))
    return distinct, torch.tensor([[float(side.count(turn)) for turn in distinct] for side in sides], device=device)
