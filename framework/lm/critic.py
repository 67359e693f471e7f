"""What a situation is worth, told from a language model's hidden state at the end of the prompt."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from framework.errors import CheckpointError

_FILE = "critic.safetensors"


class Critic(nn.Module):
    """Two layers on a state, `[B, D]` to `[B, 1]`; it begins by valuing everything at 0.

    Args:
        states: D.
        width: of the layer between.
    """

    def __init__(self, states: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(states), nn.Linear(states, width), nn.ReLU(), nn.Linear(width, 1))
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, states: Tensor) -> Tensor:
        """Values."""
        values: Tensor = self.layers(states)
        return values

    def save(self, directory: Path) -> None:
        """Writes `critic.safetensors`."""
        save_file({name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}, directory / _FILE)

    def load(self, directory: Path, device: torch.device) -> None:
        """Restores what `save` wrote.

        Raises:
            CheckpointError: it is not there, or of another shape.
        """
        try:
            self.load_state_dict(load_file(directory / _FILE, device=str(device)))
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{directory / _FILE}: no critic of this policy ({str(error).splitlines()[0]}); use the checkpoint's own settings") from error
