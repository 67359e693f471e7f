"""`rollout=vllm`: what a real engine draws, held against the model's own forward. Skipped without the extra `vllm`, which needs an environment of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from framework.errors import ConfigError
from framework.lm.adapters import Full, Lora
from framework.lm.causal import CausalLM
from framework.lm.vllm_rollout import Vllm
from framework.types import Completion, Ints, Message, Sampling, Tokens

pytest.importorskip("vllm", reason="needs the extra vllm, in an environment of its own")

ASKED = ("Hello.", "What is the weather like today?", "Hello.", "Tell me of a long journey, and why it was worth it.")


@pytest.fixture(scope="module", params=[Full, Lora])
def lm(request: pytest.FixtureRequest) -> CausalLM:
    """One engine a module: it takes seconds to begin."""
    model = CausalLM("bundled", "float32", adapter=request.param(), rollout=Vllm(0.4, eager=True))
    model.place(torch.device("cpu"))
    return model


def prompts(lm: CausalLM) -> list[Ints]:
    return [lm.prompt([Message("user", text)]) for text in ASKED]


def own(lm: CausalLM, asked: Ints, completion: Completion, temperature: float) -> list[float]:
    """Log-probabilities of a completion by the model that learns."""
    weights = np.repeat([0.0, 1.0], [len(asked), len(completion.ids)])
    with torch.no_grad():
        return [value for part in lm.score([Tokens(np.concatenate([asked, completion.ids]), weights)], temperature) for value in part.logprobs.tolist()]


def nudge(lm: CausalLM) -> None:
    """A step of the optimiser that every run uses, on gradients by chance."""
    generator = torch.Generator().manual_seed(0)
    for parameter in lm.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    torch.optim.AdamW(lm.parameters(), 3e-3, fused=True).step()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_the_models_before_and_after_it_has_learnt(lm: CausalLM, temperature: float) -> None:
    for _ in range(2):
        drawn = lm.generate(prompts(lm), Sampling(16, temperature), 3, seed=1)
        assert [len(group) for group in drawn] == [3] * len(ASKED)
        for asked, group in zip(prompts(lm), drawn, strict=True):
            for completion in group:
                np.testing.assert_allclose(completion.logprobs, own(lm, asked, completion, temperature), atol=2e-4)
        nudge(lm)


def test_the_likeliest_tokens_are_those_of_our_own_decoder(lm: CausalLM) -> None:
    theirs = lm.generate(prompts(lm), Sampling(16, 0.0))
    lm.rollout, engine = None, lm.rollout
    ours = lm.generate(prompts(lm), Sampling(16, 0.0))
    lm.rollout = engine
    for (a,), (b,) in zip(theirs, ours, strict=True):
        assert (a.ids.tolist(), a.text, a.finish_reason) == (b.ids.tolist(), b.text, b.finish_reason)


def test_a_seed_draws_the_same_again_and_another_something_else(lm: CausalLM) -> None:
    first, again, other = (lm.generate(prompts(lm), Sampling(16), 2, seed=seed) for seed in (1, 1, 2))
    said = [[[completion.text for completion in group] for group in groups] for groups in (first, again, other)]
    assert said[0] == said[1] != said[2]
    assert said[0][0] != said[0][2], "the same prompt twice, other draws"


def test_chance_of_the_run_is_what_it_would_be_with_its_own_decoder(lm: CausalLM) -> None:
    torch.manual_seed(5)
    lm.generate(prompts(lm), Sampling(4), 2, seed=1)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert after.tolist() == torch.rand(3).tolist()


def test_completions_end_at_stop_strings_and_at_their_limit(lm: CausalLM) -> None:
    plain = lm.generate(prompts(lm)[1:2], Sampling(16, 0.0))[0][0]
    stop = plain.text[4:6]
    stopped = lm.generate(prompts(lm)[1:2], Sampling(16, 0.0, stop=[stop]))[0][0]
    assert (stopped.text, stopped.finish_reason) == (plain.text[: plain.text.find(stop)], "stop")
    assert lm.generate(prompts(lm)[1:2], Sampling(2, 0.0))[0][0].finish_reason == "length"


@pytest.mark.parametrize("sampling", [Sampling(8, allowed=["Yes."]), Sampling(8, top_k=3), Sampling(8, top_p=0.9), Sampling(100_000)])
def test_what_it_cannot_do_is_refused(lm: CausalLM, sampling: Sampling) -> None:
    with pytest.raises(ConfigError, match="rollout=own|do not fit"):
        lm.generate(prompts(lm), sampling)
