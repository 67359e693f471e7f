"""How likely whole completions are: as the plain model has it, whatever is shared, packed or cut into passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from framework.lm.adapters import Full
from framework.lm.causal import CausalLM
from framework.types import Conversation, Message, Tokens

SAID = [
    ("What?", "this", "that one over there"),
    ("What?", "yes", "no"),
    ("And a much longer question, then?", "oh", "I would not know"),
    ("So?", "x" * 90, "y"),
]


@pytest.fixture
def lm(micro: Path) -> CausalLM:
    model = CausalLM(str(micro), "float32", adapter=Full())
    model.place(torch.device("cpu"))
    return model


def groups(lm: CausalLM) -> list[tuple[Tokens, Tokens]]:
    encoded = [[lm.encode(Conversation([Message("user", asked), Message("assistant", said)])) for said in answers] for asked, *answers in SAID]
    return [(first, second) for first, second in encoded]


def alone(lm: CausalLM, example: Tokens) -> torch.Tensor:
    """One example through the unchanged model."""
    logits = lm.model(input_ids=torch.as_tensor(example.ids)[None]).logits[0, :-1]
    return -cross_entropy(logits, torch.as_tensor(example.ids[1:]), reduction="none") @ torch.as_tensor(example.weights[1:], dtype=torch.float32)


def gradients(lm: CausalLM) -> list[torch.Tensor]:
    found = [parameter.grad.clone() for parameter in lm.parameters()]  # type: ignore[union-attr]
    lm.model.zero_grad()
    return found


@pytest.mark.parametrize("pass_tokens", [8_192, 100, 1])
def test_values_and_gradients_are_those_of_unshared_examples(lm: CausalLM, pass_tokens: int) -> None:
    lm.pass_tokens = pass_tokens
    pairs, seen = groups(lm), []
    for part in lm.likelihoods(pairs):
        expected = torch.stack([torch.stack([alone(lm, example) for example in pairs[number]]) for number in part.groups])
        torch.testing.assert_close(part.logprobs, expected)
        seen += part.groups.tolist()
    assert seen == [0, 1, 2, 3]
    for part in lm.likelihoods(pairs):
        (part.logprobs[:, 0] - part.logprobs[:, 1]).square().sum().backward()  # a loss that needs both sides of a pair at once
    found = gradients(lm)
    for first, second in pairs:
        (alone(lm, first) - alone(lm, second)).square().backward()
    for ours, plain in zip(found, gradients(lm), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-2)


def test_a_shared_prompt_is_read_once(lm: CausalLM) -> None:
    pairs, read = groups(lm)[:2], []
    lm.model.get_input_embeddings().register_forward_hook(lambda _, ids, __: read.append(ids[0].numel()))
    list(lm.likelihoods(pairs))
    completions = sum(int((example.weights > 0).sum()) for pair in pairs for example in pair)
    assert read == [int((pairs[0][0].weights == 0).sum()) + completions]
