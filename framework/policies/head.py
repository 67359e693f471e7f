"""An actor and a critic on the features of a language model: `policy=head`.

The observation is a set of lines. Each distinct line is read once and projected once; the situation is the sum over its lines,
because the evidence of independent answers adds up, and small networks turn that into a score for each act and a value. A world
in which the order of lines matters says so in the line.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import gymnasium
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributions import Categorical

from framework.config import Count, Fraction
from framework.errors import CheckpointError, ConfigError, TrainingError
from framework.interfaces import NetworkPolicy
from framework.lm.encoder import LineEncoder
from framework.lm.lines import LineTable
from framework.types import ActionEvaluation, Bools, Ints, Observations

_FORBIDDEN = -1e8  # score of an act that the mask excludes


class Dropout(nn.Dropout):
    """Dropout that takes a byte of chance for each feature, and so rounds `p` to 256ths.

    `nn.Dropout` spends more time on its random numbers than the layer after it on its products.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Drops in training mode only, and scales up what is kept."""
        dropped = min(round(256 * self.p), 255)
        if not self.training or not dropped:
            return features
        words = torch.empty(-(-features.numel() // 8), dtype=torch.int64, device=features.device)
        chance = words.random_(torch.iinfo(torch.int64).min, None).view(torch.uint8)[: features.numel()].view_as(features)
        kept = (chance >= dropped).view(torch.uint8)  # a product with booleans takes half as long again
        return (features * kept).mul_(256 / (256 - dropped))


class Head(nn.Module):
    """From line features to scores and values.

    Args:
        shape: (K, D) of a line's features.
        n_acts: A.
        width: of the hidden layers.
        dropout: of line features, in training mode.
    """

    def __init__(self, shape: tuple[int, int], n_acts: int, width: int, dropout: float) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Flatten(), Dropout(dropout), nn.Linear(shape[0] * shape[1], width), nn.ReLU())
        self.gather = nn.Linear(width, width)
        self.actor, self.critic = (
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, outputs))
            for outputs in (n_acts, 1)
        )
        last = self.actor[-1]
        assert isinstance(last, nn.Linear)
        nn.init.orthogonal_(last.weight, gain=0.01)  # begin near uniform acts

    def forward(self, features: Tensor, index: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Scores `[B, A]` and values `[B]`.

        Args:
            features: distinct lines, `[U, K, D]`.
            index: for each place of an observation which line stands there, `[B, L]`; U for none.
            mask: allowed acts, `[B, A]`.
        """
        return self.decide(self.meaning(features, index), mask)

    def decide(self, meaning: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and values of what observations mean."""
        return self.score(meaning, mask), self.critic(meaning).squeeze(1)

    def score(self, meaning: Tensor, mask: Tensor) -> Tensor:
        """Scores alone."""
        scores: Tensor = self.actor(meaning).masked_fill(~mask, _FORBIDDEN)
        return scores

    def meaning(self, features: Tensor, index: Tensor) -> Tensor:
        """A linear map of the sum over the projected lines of each observation, `[B, W]`; arguments as in `forward`."""
        lines = self.read(features)
        lines = torch.cat([lines, lines.new_zeros(1, lines.shape[1])])
        summed = nn.functional.embedding(index, lines).sum(dim=1)  # `embedding_bag` is faster, but lacks the second derivative that TRPO takes
        meaning: Tensor = self.gather(summed)
        return meaning


class HeadNetwork(nn.Module):
    """Reader, line table and head: encoded observations in, scores and values out."""

    def __init__(self, lm: LineEncoder, lines: LineTable, head: Head, max_lines: int) -> None:
        super().__init__()
        self.lm, self.lines, self.head, self.max_lines = lm, lines, head, max_lines

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Scores `[B, A]` and values `[B]` of line numbers and masks `[B, L + A]`."""
        return self.decide(*self.read(encoded))

    def read(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """What observations mean, `[B, W]`, and their masks, `[B, A]`."""
        device = encoded.device
        numbers, mask = encoded[:, : self.max_lines].cpu().numpy(), encoded[:, self.max_lines :].to(device) > 0
        used = int((numbers > 0).any(axis=0).sum())
        distinct, index = np.unique(numbers[:, :used], return_inverse=True)
        index = index.reshape(len(numbers), used)
        if distinct[0] == 0:  # the empty line goes last, where the head keeps its zero
            distinct, index = distinct[1:], np.where(index == 0, len(distinct) - 1, index - 1)
        return self.head.meaning(self.lines.features(distinct), torch.as_tensor(index, device=device)), mask

    def decide(self, meaning: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and values of what `read` gave.

        Raises:
            TrainingError: they are no numbers.
        """
        scores, values = self.head.decide(meaning, mask)
        return _finite(scores), _finite(values)

    def score(self, meaning: Tensor, mask: Tensor) -> Tensor:
        """Scores alone, as `decide` gives them."""
        return _finite(self.head.score(meaning, mask))

    def hold_reader(self, held: bool) -> None:
        """Holds a reader that could learn still, so that its features can be kept, or lets it go again."""
        adapter = [parameter for name, parameter in self.lm.named_parameters() if "lora_" in name]
        self.lm.trainable = bool(adapter) and not held
        for parameter in adapter:
            parameter.requires_grad_(not held)

    def train_critic_only(self, only: bool) -> None:
        """Holds everything but the critic still, or lets it go again."""
        for name, parameter in self.named_parameters():
            if name.startswith("head.") or "lora_" in name:
                parameter.requires_grad_(not only or name.startswith("head.critic"))

    def twin(self) -> HeadNetwork:
        """A copy with a head of its own and the same frozen reader: a target network, or what a policy was.

        Raises:
            ConfigError: the reader learns too, so it cannot be shared.
        """
        if self.lm.trainable:
            told = "algo=ppo without algo.kl_coef and experiment.climb_episodes"
            raise ConfigError("adapter", f"a second head on the same language model needs it frozen; use adapter=frozen, or {told}")
        return HeadNetwork(self.lm, self.lines, copy.deepcopy(self.head), self.max_lines)


class HeadPolicy(NetworkPolicy):
    """Encodes observations as line numbers and a mask, and scores acts with a `HeadNetwork`.

    Args:
        lm: the reader of lines.
        n_acts: A.
        width: of the head's layers.
        dropout: of line features, in training mode.
        max_lines: L; an observation with more lines keeps the first and the last ones.
        cache: lines whose features are kept in memory.
    """

    network: HeadNetwork

    def __init__(self, lm: LineEncoder, n_acts: int, width: Count = 128, dropout: Fraction = 0.0, max_lines: Count = 32, cache: Count = 65_536) -> None:
        if n_acts < 2:
            raise ValueError("there is one act, so there is nothing to choose; prompts of data are answered in words: use algo=grpo, ppo_text, ...")
        self.lm, self.n_acts, self.width, self.dropout, self.max_lines, self.cache = lm, n_acts, width, dropout, max_lines, cache
        self.space = gymnasium.spaces.Box(0, np.iinfo(np.int64).max, (max_lines + n_acts,), np.int64)

    def prepare(self, observations: Sequence[str], device: torch.device) -> None:
        """Loads the language model, fits it on the distinct lines and makes a fresh head."""
        self.lm.place(device)
        self.lm.fit(sorted({line for text in observations for line in text.split("\n")}))
        self._assemble(device)

    def encode(self, texts: Sequence[str], masks: Bools) -> Ints:
        """See `NetworkPolicy`: line numbers, then the mask, `[B, L + A]`."""
        encoded = np.zeros((len(texts), self.max_lines + self.n_acts), np.int64)
        for row, text in enumerate(texts):
            lines = text.split("\n")
            if len(lines) > self.max_lines:
                lines = lines[: self.max_lines // 2] + lines[len(lines) - (self.max_lines - self.max_lines // 2) :]
            encoded[row, : len(lines)] = self.network.lines.numbers(lines)
        encoded[:, self.max_lines :] = masks
        return encoded

    @torch.no_grad()
    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        """See `Policy`."""
        scores, _ = self._forward(observations)
        chosen = scores.argmax(dim=1) if deterministic else Categorical(logits=scores).sample()
        return np.asarray(chosen.cpu().numpy())

    def evaluate(self, observations: Observations, actions: Ints) -> ActionEvaluation:
        """See `Policy`."""
        scores, values = self._forward(observations)
        chosen = Categorical(logits=scores)
        return ActionEvaluation(chosen.log_prob(torch.as_tensor(actions, device=scores.device)), chosen.entropy(), values)

    def save(self, directory: Path, working: bool = False) -> None:
        """Writes `policy.safetensors`: the head, the reader's statistics and its adapter, not its frozen weights."""
        state = {key: value.detach().cpu().contiguous() for key, value in self.network.state_dict().items()}
        save_file(state, directory / "policy.safetensors")
        if working:
            self.network.lines.save(directory)

    def load(self, directory: Path, device: torch.device) -> None:
        """Restores what `save` wrote."""
        if not hasattr(self, "network"):
            self.lm.place(device)
            self._assemble(device)
        found = load_file(directory / "policy.safetensors", device=str(device))
        expected = self.network.state_dict()
        wrong = set(found) ^ set(expected) | {
            key for key in set(found) & set(expected) if not key.endswith("_extra_state") and found[key].shape != expected[key].shape
        }
        if wrong:
            raise CheckpointError(f"{directory}: holds a policy of another configuration; it differs in {', '.join(sorted(wrong)[:4])}")
        self.network.load_state_dict(found, strict=False)
        self.network.lines.load(directory)

    def snapshot(self) -> HeadPolicy:
        """See `Policy`; the reader and its lines are shared.

        Raises:
            ConfigError: the reader learns too, so it cannot be shared.
        """
        kept = copy.copy(self)
        kept.network = self.network.twin()
        return kept

    def _assemble(self, device: torch.device) -> None:
        head = Head(self.lm.shape, self.n_acts, self.width, self.dropout).to(device)
        self.network = HeadNetwork(self.lm, LineTable(self.lm, self.cache), head, self.max_lines).eval()

    def _forward(self, observations: Observations) -> tuple[Tensor, Tensor]:
        scores, values = self.network(torch.as_tensor(self.encode(observations.texts, observations.masks)))
        return scores, values


def _finite(numbers: Tensor) -> Tensor:
    if not numbers.isfinite().all():
        told = "an update went too far, and nothing is kept of it. Try a lower algo.learning_rate (or warm_start.learning_rate, if it was cloning)"
        raise TrainingError(f"the policy's scores are no numbers any more: {told}")
    return numbers
