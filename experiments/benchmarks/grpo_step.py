"""A step of group-relative policy optimisation: TRL's GRPOTrainer against `algo=grpo`, from sampling to the update (README.md beside this file).

`python -m experiments.benchmarks.grpo_step [--rounds 5] [--prompts 8] [--size 4M|100M] [--out FILE]`

Both draw eight completions of each of some prompts from the same random Llama at temperature 1, pay them by what they contain, and take
one step on them, with one torch thread; steps are taken in turn in one process, and the first is a warm-up. Four cases: the whole
model or a LoRA adapter learns, completions have up to 32 or 64 tokens. What is drawn is chance, so losses are alike and not the same.
Seconds are of processor time: on one thread of an idle machine the same as by the clock on the wall, and a busy neighbour moves
them little.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.benchmarks.dpo_step import SMALL, write_model
from experiments.benchmarks.in_turn import COLUMNS, InTurn, asked, keep, lines, times_as_fast
from framework.algorithms.grpo import GRPO
from framework.environments import TextWorld
from framework.errors import MissingExtraError
from framework.interfaces import Learning
from framework.lm.adapters import Full, Lora
from framework.lm.causal import CausalLM
from framework.policies.generative import GenerativePolicy
from framework.precision import Precision
from framework.types import Bools, Sampling, Transition

_RATE, _CLIP, _WORDS, _GROUP, _PROMPT = 1e-5, 1.0, 4_096, 8, 64
_CPU = torch.device("cpu")
SIZES = {"4M": SMALL, "100M": {"hidden_size": 768, "intermediate_size": 2_048, "num_hidden_layers": 14, "num_attention_heads": 12}}
"""Of random Llamas, by how many parameters they have."""


def text(rng: np.random.Generator) -> str:
    """A prompt of 64 tokens."""
    return " ".join(f"w{word}" for word in rng.integers(2, _WORDS, _PROMPT))


def pays(said: str) -> bool:
    """Whether it has an even number of words with a seven in them."""
    return sum("7" in word for word in said.split()) % 2 == 0


class Asked(TextWorld):
    """A prompt, one reply, and what it pays."""

    def __init__(self) -> None:
        super().__init__(("odd", "even"), max_steps=1)

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> list[str]:
        """See `TextWorld`."""
        return [text(rng)]

    def act(self, action: int) -> Transition:
        """See `TextWorld`."""
        return Transition({"pay": float(action)}, terminated=True)

    def action_mask(self) -> Bools:
        """See `World`."""
        return np.ones(2, bool)

    def information_state(self) -> tuple[int, ...]:
        """See `World`."""
        return ()

    def get_world(self) -> dict[str, Any]:
        """See `TextWorld`."""
        return {}

    def set_world(self, state: Mapping[str, Any]) -> None:
        """See `TextWorld`."""


class Speaker(GenerativePolicy):
    """Says anything, which is taken for one of the two acts."""

    def __init__(self, lm: CausalLM, max_tokens: int) -> None:
        self.lm, self.critic_width, self.sampling = lm, 1, Sampling(max_tokens)

    def _meant(self, reply: str, mask: Bools) -> int:
        return int(pays(reply))


class Ours:
    """Batches of `algo=grpo`, nothing left out but the experiment around it."""

    def __init__(self, directory: Path, adapter: Full | Lora, prompts: int, new: int, dtype: Precision) -> None:
        self.policy = Speaker(CausalLM(str(directory), adapter=adapter, dtype=dtype), new)
        self.policy.prepare((), _CPU)
        self.grpo = GRPO(
            total_steps=10**9, learning_rate=_RATE, learning_rate_end=None, max_grad_norm=_CLIP, kl_coef=0.0, kl_target=None,
            n_groups=prompts, group_size=_GROUP, batch_size=prompts * _GROUP, n_epochs=1, loss="grpo", clip_low=None, clip_high=None,
        )  # fmt: skip
        self.told: Mapping[str, float] = {}
        self.run = Learning(self._told, 0, _CPU)
        self.grpo.begin(self.policy, self.run)
        self.worlds = [Asked() for _ in range(prompts * _GROUP)]

    def step(self) -> float:
        """One batch; its loss."""
        with redirect_stdout(None):  # it warns that no reply comes to an end, which is as it should be here
            self.grpo.iterate(self.policy, self.worlds, self.run)
        self.grpo.goes_on(self.run)
        return self.told["train/loss"]

    def _told(self, steps: int, metrics: Mapping[str, float]) -> bool:
        self.told = metrics
        return True


def compare(prompts: int, rounds: int, size: str, adapter: str, new: int, dtype: Precision) -> dict[str, Any]:
    """Seconds of a step, both ways, and the losses; the first round is left out of the times."""
    try:
        from datasets import Dataset
        from peft import LoraConfig
        from trl import GRPOConfig, GRPOTrainer  # type: ignore[attr-defined]
    except ImportError as error:
        raise MissingExtraError("TRL", "bench") from error
    ours = Lora() if adapter == "lora" else Full()
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "model"
        write_model(model, SIZES[size])
        settings = GRPOConfig(
            output_dir=place, per_device_train_batch_size=prompts * _GROUP, num_generations=_GROUP, max_completion_length=new, max_steps=rounds + 1,
            learning_rate=_RATE, lr_scheduler_type="constant", max_grad_norm=_CLIP, use_cpu=True, bf16=dtype == "bfloat16",
            gradient_checkpointing=False, logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        rng = np.random.default_rng(0)
        trainer = GRPOTrainer(
            model=LlamaForCausalLM.from_pretrained(model),
            reward_funcs=_paid,
            args=settings,
            processing_class=PreTrainedTokenizerFast.from_pretrained(model, padding_side="left"),
            train_dataset=Dataset.from_list([{"prompt": text(rng)} for _ in range(8 * prompts)]),
            peft_config=LoraConfig(r=ours.rank, lora_alpha=ours.alpha, target_modules="all-linear", task_type="CAUSAL_LM") if isinstance(ours, Lora) else None,
        )
        return InTurn(Ours(model, ours, prompts, new, dtype).step).run(trainer)


def _paid(completions: list[str], **_: Any) -> list[float | None]:
    return [float(pays(completion)) for completion in completions]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    given = asked("grpo_step", "Group-relative policy optimisation, seconds of a step.", "prompts", arguments, count=8, size=tuple(SIZES))
    results = {
        f"{adapter}, {new}": compare(given.count, given.rounds, given.size, adapter, new, given.dtype) for adapter in ("full", "lora") for new in (32, 64)
    }
    shown = Table("learns, new tokens", *COLUMNS)
    for name, found in results.items():
        for cells in lines(found, given.count * _GROUP * int(name.split()[1])):
            shown.add_row(name, *cells)
    Console().print(shown)
    for name, found in results.items():
        Console().print(f"{name}: {times_as_fast(found)}")
    keep(given, results)


if __name__ == "__main__":
    main()
