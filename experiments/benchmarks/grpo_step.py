"""A step of group-relative policy optimisation: TRL's GRPOTrainer against `algo=grpo`, from sampling to the update (README.md beside this file).

`python -m experiments.benchmarks.grpo_step [--rounds 5] [--prompts 8] [--size 4M|100M] [--out FILE]`

Both draw eight completions of each of some prompts from the same random Llama at temperature 1, pay them by what they contain, and take
one step on them, with one torch thread; steps are taken in turn in one process, and the first is a warm-up. Four cases: the whole
model or a LoRA adapter learns, completions have up to 32 or 64 tokens. What is drawn is chance, so losses are alike and not the same.
Seconds are of processor time: on one thread of an idle machine the same as by the clock on the wall, and a busy neighbour moves
them little.

As many further steps of ours are told apart by phase, and held against the speed at which this machine multiplies matrices.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.benchmarks.dpo_step import SMALL, write_model
from experiments.benchmarks.in_turn import COLUMNS, InTurn, asked, keep, lines, times_as_fast
from framework.algorithms.grpo import GRPO
from framework.errors import MissingExtraError
from framework.interfaces import Learning, Speech
from framework.lm.adapters import Full, Lora
from framework.lm.causal import CausalLM
from framework.policies.generative import GenerativePolicy
from framework.precision import Precision, chosen
from framework.types import Bools, Sampling, Tokens, Transition
from framework.worlds.environments import TextWorld

_RATE, _CLIP, _WORDS, _GROUP, _PROMPT = 1e-5, 1.0, 4_096, 8, 64
_CPU = torch.device("cpu")
SIZES = {"4M": SMALL, "100M": {"hidden_size": 768, "intermediate_size": 2_048, "num_hidden_layers": 14, "num_attention_heads": 12}}
"""Of random Llamas, by how many parameters they have."""
GENERATION, REWARD, FORWARD, BACKWARD, OPTIMISER = PHASES = ("generation", "reward", "forward and loss", "backward", "optimiser")
"""Of a step. The forward pass holds laying tokens out, the optimiser clipping gradients. What is in none of them is overhead: tokenising prompts, batches,
advantages, the record."""
_SQUARES, _TRIES = (512, 1_024, 2_048), 5  # sides of the matrices by which the peak is sought, and products of each


def text(rng: np.random.Generator) -> str:
    """A prompt of 64 words; about 81 tokens, since a word that begins as the mark of the end does is taken for that mark and another."""
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


class Anything(Speech):
    """Whatever is said is one of the two acts."""

    def understand(self, text: str) -> int:
        """See `Speech`."""
        return int(pays(text))

    def answer(self, shown: str, act: int, rng: np.random.Generator) -> str:
        """See `Speech`; nobody is taught here."""
        raise NotImplementedError


class Speaker(GenerativePolicy):
    """Says anything."""

    def __init__(self, lm: CausalLM, max_tokens: int) -> None:
        self.lm, self.critic_width, self.sampling, self.told, self.speech = lm, 1, Sampling(max_tokens), (), Anything()


class Ours:
    """Batches of `algo=grpo`, nothing left out but the experiment around it."""

    def __init__(self, directory: Path, adapter: Full | Lora, prompts: int, new: int, dtype: Precision) -> None:
        self.lm = CausalLM(str(directory), adapter=adapter, dtype=dtype)
        self.policy = Speaker(self.lm, new)
        self.policy.prepare((), _CPU)
        self.grpo = GRPO(
            total_steps=10**9, learning_rate=_RATE, learning_rate_end=None, max_grad_norm=_CLIP, kl_coef=0.0, kl_target=None,
            n_groups=prompts, group_size=_GROUP, batch_size=prompts * _GROUP, n_epochs=1, loss="grpo", credit="episode", clip_low=None, clip_high=None,
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
    """Seconds of a step, both ways, the losses, and where ours spends its time; the first round is left out of the times."""
    try:
        from datasets import Dataset
        from peft import LoraConfig
        from trl import GRPOConfig, GRPOTrainer  # type: ignore[attr-defined]
    except ImportError as error:
        raise MissingExtraError("TRL", "bench") from error
    learns = Lora() if adapter == "lora" else Full()
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
            peft_config=LoraConfig(r=learns.rank, lora_alpha=learns.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
            if isinstance(learns, Lora)
            else None,
        )
        ours = Ours(model, learns, prompts, new, dtype)
        return InTurn(ours.step).run(trainer) | {"breakdown": breakdown(ours, rounds, dtype)}


def _paid(completions: list[str], **_: Any) -> list[float | None]:
    return [float(pays(completion)) for completion in completions]


def breakdown(ours: Ours, steps: int, dtype: Precision) -> dict[str, Any]:
    """Where steps of ours spend their time: means over steps that are not timed otherwise, and the speed of the machine right after them.

    Returns:
        seconds of a step and of each phase of it, the share that is overhead, floating-point operations of a step, how many of them a second
        the machine does at best, and which share of that the steps came to.
    """
    spent, learnt, whole = dict.fromkeys(PHASES, 0.0), list[Sequence[Tokens]](), 0.0
    with _timed(ours, spent, learnt):
        for _ in range(steps):
            began = time.process_time()
            ours.step()
            whole += time.process_time() - began
    done, best = sum(operations(ours.lm, examples) for examples in learnt), peak(dtype)
    return {
        "seconds": whole / steps,
        "phases": {phase: seconds / steps for phase, seconds in spent.items()},
        "overhead": 1 - sum(spent.values()) / whole,
        "operations": done / steps,
        "peak": best,
        "share_of_peak": done / whole / best,
    }


@contextmanager
def _timed(ours: Ours, spent: dict[str, float], learnt: list[Sequence[Tokens]]) -> Iterator[None]:
    """Adds processor time to the phases of steps that are taken meanwhile, and keeps what they learn from; two readings of the clock a call."""

    def within(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            began = time.process_time()
            result = function(*given, **named)
            spent[phase] += time.process_time() - began
            return result

        return call

    def score(*given: Any) -> Iterator[Any]:
        learnt.append(given[0])
        parts = unpatched(*given)
        while (part := within(FORWARD, next)(parts, None)) is not None:
            yield part

    unpatched = ours.lm.score
    phases: list[tuple[Any, str, str]] = [
        *((ours.lm, "generate", GENERATION), (Asked, "reset", REWARD), (Asked, "step", REWARD), (ours.policy, "_meant", REWARD)),
        *((ours.grpo, "weights", FORWARD), (ours.grpo, "terms", FORWARD), (Tensor, "backward", BACKWARD), (ours.grpo, "update", OPTIMISER)),
    ]
    with ExitStack() as patched:
        for owner, name, phase in phases:
            patched.enter_context(patch.object(owner, name, within(phase, getattr(owner, name))))
        patched.enter_context(patch.object(ours.lm, "score", score))
        yield


def operations(lm: CausalLM, examples: Sequence[Tokens]) -> int:
    """Floating-point operations that drawing completions and one pass of learning from them need: two for each weight that a token meets.

    Drawing: each distinct prompt is read once, and of each completion all tokens but the last; the head sees one state for each token that is drawn.
    Learning: each distinct token goes through the layers once, back to what came in, and, where weights learn, back to them; the head sees what
    predicts the tokens that were drawn, forward and back likewise. Left out are attention, LoRA while drawing (its updates may be added to the
    weights) and logits that are computed anew because they are too many to keep; what the last layer is spared where nothing is predicted is
    counted. All in all that is within 3 % of what is multiplied, unless completions are much shorter than prompts.

    Args:
        lm: that learns.
        examples: prompts of weight 0, each with the completion drawn after it.
    """
    head = lm.model.get_output_embeddings().weight
    layers = [layer.weight for layer in lm.model.modules() if isinstance(layer, nn.Linear) and layer.weight is not head]
    weights, learning = sum(map(Tensor.numel, layers)), sum(layer.numel() for layer in layers if layer.requires_grad)
    read = sum(map(len, {tuple(example.ids[example.weights == 0]) for example in examples}))
    said = sum(int(np.count_nonzero(example.weights)) for example in examples)
    drawing = (weights - learning if isinstance(lm.adapter, Lora) else weights) * (read + said - len(examples)) + head.numel() * said
    back = (2 * weights + learning) * (read + said) + (2 + head.requires_grad) * head.numel() * said
    return int(2 * (drawing + back))


def peak(dtype: Precision) -> float:
    """Floating-point operations a second at which matrices are multiplied at best, on this thread: of several sizes, by torch's own choice and by oneDNN."""
    precision, rates = chosen(_CPU, dtype), list[float]()
    for side in _SQUARES:
        x, weight = (torch.randn(side, side, dtype=precision) for _ in range(2))
        for multiply in _ways(x, weight):
            multiply()
            for _ in range(_TRIES):
                began = time.process_time()
                multiply()
                rates.append(2 * side**3 / (time.process_time() - began))
    return max(rates)


def _ways(x: Tensor, weight: Tensor) -> Iterator[Callable[[], Tensor]]:
    yield lambda: F.linear(x, weight)
    if torch.backends.mkldnn.is_available() and (x.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, len(x))
        yield lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def _apart(results: Mapping[str, Any]) -> Table:
    """Breakdowns side by side."""
    found = [result["breakdown"] for result in results.values()]
    shown = Table("ours, s/step", *results)
    for phase in PHASES:
        shown.add_row(phase, *(f"{each['phases'][phase]:.3f}" for each in found))
    shown.add_row("overhead", *(f"{each['overhead'] * each['seconds']:.3f} ({each['overhead']:.1%})" for each in found))
    shown.add_row("all", *(f"{each['seconds']:.3f}" for each in found), end_section=True)
    shown.add_row("GFLOP", *(f"{each['operations'] / 1e9:.1f}" for each in found))
    shown.add_row("GFLOP/s at best", *(f"{each['peak'] / 1e9:.0f}" for each in found))
    shown.add_row("share of that", *(f"{each['share_of_peak']:.1%}" for each in found))
    return shown


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
    Console().print(_apart(results))
    keep(given, results)


if __name__ == "__main__":
    main()
