"""A language model that acts and a critic that reads the same states, made, kept and restored together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from framework.interfaces import LanguageModel, SpeakingPolicy
from framework.lm.critic import Critic


class SpeakingActorCritic(SpeakingPolicy):
    """What is the same whether acts are written or names of acts are compared.

    Args:
        lm: the trunk.
        critic_width: of the layer of the critic's own.
    """

    critic: Critic

    def __init__(self, lm: LanguageModel, critic_width: int) -> None:
        self.lm, self.critic_width = lm, critic_width

    def prepare(self, observations: Sequence[str], device: torch.device) -> None:
        """Loads the language model and makes a fresh critic."""
        self.lm.place(device)
        self.critic = Critic(self.lm.width, self.critic_width).to(device)

    def save(self, directory: Path, working: bool = False) -> None:
        """Writes the language model, in Hugging Face layout, and the critic."""
        self.lm.save(directory)
        self.critic.save(directory)

    def load(self, directory: Path, device: torch.device) -> None:
        """Restores what `save` wrote."""
        if not hasattr(self, "critic"):
            self.prepare((), device)
        self.lm.load(directory)
        self.critic.load(directory, device)
