"""A model and its tokenizer together: answers, and a directory in Hugging Face layout."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from framework.seeding import chance_apart

_ANSWER_TOKENS = 48
TEMPERATURE = 0.7  # of sampled answers


@dataclass(frozen=True)
class Student:
    """A language model that can be talked to."""

    model: Any  # of transformers, as is the tokenizer
    tokenizer: Any

    @torch.no_grad()
    def answers(self, prompts: Sequence[str], temperature: float, seed: int) -> list[str]:
        """One answer to each user's message.

        Args:
            prompts: users' messages.
            temperature: of the drawing; 0 takes the likeliest token.
            seed: of the drawing, which leaves torch's own generator as it was.
        """
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        read = self.tokenizer.apply_chat_template(chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True).to(self.model.device)
        drawing = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        learning = self.model.training
        self.model.eval()
        with chance_apart(seed):
            said = self.model.generate(**read, **drawing, max_new_tokens=_ANSWER_TOKENS)
        self.model.train(learning)
        return [text.strip() for text in self.tokenizer.batch_decode(said[:, read["input_ids"].shape[1] :], skip_special_tokens=True)]

    def samples(self, prompts: Sequence[str], seed: int) -> list[dict[str, str]]:
        """Prompts with the likeliest answer and one that is drawn."""
        told = zip(prompts, self.answers(prompts, 0, seed), self.answers(prompts, TEMPERATURE, seed), strict=True)
        return [{"prompt": prompt, "greedy": greedy, "sampled": sampled} for prompt, greedy, sampled in told]

    def save(self, directory: Path) -> None:
        """Writes model (bfloat16), tokenizer and template."""
        logging.disable_progress_bar()
        copy.deepcopy(self.model).to(torch.bfloat16).save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
