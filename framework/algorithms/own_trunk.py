"""A second language model, by which nobody acts: what the critic reads with under `algo=ppo_text algo.critic_trunk=own`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from framework.errors import CheckpointError
from framework.interfaces import LanguageModel
from framework.types import Ints, Tokens

_FILE = "critic_trunk.safetensors"


class OwnTrunk:
    """Begins as the policy's language model is now, and from then on learns by itself.

    Args:
        lm: the policy's; what does not learn of it is held once.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm.twin()

    def read(self, prompts: Sequence[Ints]) -> Iterator[tuple[Tensor, Tensor]]:
        """States at the ends of prompts, `[E, D]`, differentiable, and which prompts they are of, `[E]`, in parts that one training pass can hold.

        Each distinct prompt is read once. Each part is to be sent backward before the next is drawn.
        """
        keys = [np.asarray(prompt, np.int64).tobytes() for prompt in prompts]
        distinct = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        owners = torch.tensor([distinct[key] for key in keys])
        examples = [np.frombuffer(key, np.int64) for key in distinct]
        for part in self.lm.ends([[Tokens(ids, np.zeros(len(ids)))] for ids in examples]):
            groups = part.groups.cpu()
            rows = torch.isin(owners, groups).nonzero()[:, 0]
            places = torch.searchsorted(groups, owners[rows])
            yield part.states[places.to(part.states.device)], rows.to(part.states.device)

    def save(self, directory: Path) -> None:
        """Writes `critic_trunk.safetensors`: what learns of it."""
        save_file({str(number): value.detach().cpu().contiguous() for number, value in enumerate(self.lm.parameters())}, directory / _FILE)

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """Restores what `save` wrote.

        Raises:
            CheckpointError: it is not there, or of another model.
        """
        place, learning = directory / _FILE, self.lm.parameters()
        try:
            kept = load_file(place)
        except OSError as error:
            told = "the critic's own language model (algo.critic_trunk=own) is not in this checkpoint; use the checkpoint's own settings"
            raise CheckpointError(f"{place}: {told}") from error
        if {name: value.shape for name, value in kept.items()} != {str(number): value.shape for number, value in enumerate(learning)}:
            raise CheckpointError(f"{place}: of another language model; use the checkpoint's own settings")
        for number, value in enumerate(learning):
            value.copy_(kept[str(number)])
