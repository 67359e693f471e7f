"""States at the ends of whole examples: as the plain model has them, whatever is shared, packed or cut into passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from framework.lm.adapters import Full
from framework.lm.causal import CausalLM
from framework.types import Conversation, Message, Tokens

ASKED = [
    [("What?", "this"), ("What?", "that one over there"), ("And now?", "x" * 60)],
    [("What?", "yes")],
    [("So?", "y"), ("And now?", "no")],
]  # groups of several sizes; two of them share a prompt across groups


@pytest.fixture
def lm(micro: Path) -> CausalLM:
    model = CausalLM(str(micro), "float32", adapter=Full())
    model.place(torch.device("cpu"))
    return model


def encoded(lm: CausalLM) -> list[list[Tokens]]:
    return [[lm.encode(Conversation([Message("user", asked), Message("assistant", said)])) for asked, said in group] for group in ASKED]


def alone(lm: CausalLM, example: Tokens) -> torch.Tensor:
    """One example through the unchanged network."""
    states: torch.Tensor = lm.model.model(input_ids=torch.as_tensor(example.ids)[None]).last_hidden_state
    return states[0, -1]


@pytest.mark.parametrize("pass_tokens", [8_192, 100, 1])
def test_states_and_gradients_are_those_of_unshared_examples(lm: CausalLM, pass_tokens: int) -> None:
    lm.pass_tokens = pass_tokens
    groups, seen = encoded(lm), list[int]()
    for part in lm.ends(groups):
        here = [example for number in part.groups.tolist() for example in groups[number]]
        torch.testing.assert_close(part.states, torch.stack([alone(lm, example) for example in here]))
        seen += part.groups.tolist()
        part.states.square().sum().backward()  # type: ignore[no-untyped-call]
    assert seen == [0, 1, 2]
    found = [parameter.grad.clone() for parameter in lm.parameters() if parameter.grad is not None]
    lm.model.zero_grad()
    for group in groups:
        for example in group:
            alone(lm, example).square().sum().backward()  # type: ignore[no-untyped-call]
    for ours, parameter in zip(found, (each for each in lm.parameters() if each.grad is not None), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-3, atol=1e-3)


def test_a_shared_prompt_is_read_once(lm: CausalLM) -> None:
    group, read = encoded(lm)[0][:2], list[int]()
    lm.model.get_input_embeddings().register_forward_hook(lambda _, ids, __: read.append(ids[0].numel()))
    list(lm.ends([group]))
    prompt = int((group[0].weights == 0).sum())
    assert read == [sum(len(example.ids) for example in group) - prompt]
