"""Completions drawn by vLLM (Kwon et al., 2023) instead of `framework.lm.generate`: `rollout=vllm`."""

from __future__ import annotations

import copy
import importlib.util
import os
import random
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framework.config import Fraction
from framework.errors import ConfigError
from framework.lm.generate import Ending, check_request
from framework.types import Completion, Ints, Sampling


class Vllm:
    """An engine within this process, made at the first prompts; it takes over a model's weights whenever they may have changed.

    Low-rank updates are folded into the weights that it takes over, in the precision in which it computes. Its log-probabilities are those that
    updates are weighed against, and differ from the model's own by rounding: what was drawn on-policy has ratios near 1, not of 1.

    Args:
        memory: share of the device's memory that the engine may take, weights and cache.
        eager: whether it does without CUDA graphs: begins sooner, draws slower.
    """

    def __init__(self, memory: Fraction, eager: bool) -> None:
        self.memory, self.eager = memory, eager
        self._engine: Any = None
        self._holds: tuple[Any, object | None] = (None, None)  # whose weights the engine took over, and in which period

    def check_installed(self) -> None:
        """Raises a `ConfigError` where there is no vLLM; nothing is imported for it."""
        if importlib.util.find_spec("vllm") is None:
            how = "pip install '.[vllm]' in a fresh environment, for it brings a torch and a transformers of its own"
            raise ConfigError("rollout", f"vllm is not installed; {how}; or rollout=own")

    def generate(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[Ints],
        sampling: Sampling,
        n: int,
        *,
        dtype: torch.dtype,
        end_ids: Collection[int],
        decode: Callable[[Ints], str],
        generator: torch.Generator | None,
        period: object | None = None,
    ) -> list[list[Completion]]:
        """As `framework.lm.generate.generate`, but what one completion says depends on which others are drawn with it.

        Args:
            tokenizer: of transformers; stop strings need it.
            dtype: in which the engine computes.
            period: the same object for as long as the model does not learn; None: it may have learnt since it was last asked.

        Raises:
            ConfigError: `sampling` is not what vLLM can do, or a prompt is too long.
        """
        check_request(model, prompts, sampling)
        if sampling.allowed or sampling.top_k or sampling.top_p < 1:
            raise ConfigError("rollout", "vllm's log-probabilities are those of drawing from all tokens: no allowed texts, top_k=0 and top_p=1, or rollout=own")
        seed = int(torch.randint(2**31, (), generator=generator))  # one for all: vLLM draws row by row where each has its own
        rows = [{"prompt_token_ids": np.asarray(prompt).tolist()} for prompt in prompts for _ in range(n)]
        with _chance_apart():
            if self._engine is None:
                self._engine = self._made(model, tokenizer, dtype)
            if period is None or self._holds[0] is not model or self._holds[1] is not period:
                self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": _weights(model)})
                self._engine.reset_prefix_cache()
                self._holds = (model, period)
            torch.manual_seed(seed)
            outputs = self._engine.generate(rows, _parameters(sampling, end_ids), use_tqdm=False)
        ending = Ending(sampling, end_ids, decode)
        said = [_completion(output.outputs[0], ending) for output in outputs]
        return [said[first : first + n] for first in range(0, len(said), n)]

    def _made(self, model: Any, tokenizer: Any, dtype: torch.dtype) -> Any:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # within this process weights are handed over as they are
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        from vllm import LLM

        with tempfile.TemporaryDirectory() as directory:
            model.config.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            return LLM(
                directory, load_format="dummy", dtype=dtype, max_model_len=model.config.max_position_embeddings, gpu_memory_utilization=self.memory,
                enforce_eager=self.eager, logprobs_mode="processed_logprobs", disable_log_stats=True, trust_remote_code=False,
            )  # fmt: skip


def _parameters(sampling: Sampling, end_ids: Collection[int]) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=sampling.max_tokens, temperature=sampling.temperature, stop=list(sampling.stop), stop_token_ids=sorted(end_ids),
        logprobs=0, detokenize=bool(sampling.stop),
    )  # fmt: skip


def _completion(output: Any, ending: Ending) -> Completion:
    ids = list(output.token_ids)
    logprobs = [place[token].logprob for token, place in zip(ids, output.logprobs, strict=True)]
    return Completion(np.array(ids, np.int64), np.array(logprobs), ending.text(ids), output.finish_reason)


def _weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Weights by their names in Hugging Face layout, low-rank updates folded in."""
    whole = copy.deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model
    yield from whole.state_dict().items()


@contextmanager
def _chance_apart() -> Iterator[None]:
    """What is seeded and drawn meanwhile leaves the run's chance as it was."""
    here, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(here)
        np.random.set_state(of_numpy)
