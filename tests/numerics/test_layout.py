"""Packed laid: what lies together comes out as it would alone, in values and in gradients, and models for which it would not are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GPT2Config, LlamaConfig, MambaConfig, MistralConfig

from framework.errors import ConfigError
from framework.lm.layout import Pass, Tree, hidden_states, pack, trees, verify
from framework.lm.logprobs import logprobs, output_head, weighted_nll
from framework.types import Tokens

V = 61
SMALL: dict[str, Any] = {"vocab_size": V, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDE: dict[str, Any] = {**SMALL, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


def model(config: Any = None, **loading: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config or LlamaConfig(**WIDE), **loading).eval()


def gpt2() -> Any:
    return model(GPT2Config(**SMALL, n_embd=16, n_layer=2, n_head=4))


def examples(groups: int = 5, weights: float | None = None) -> list[Tokens]:
    """One to three completions of each prompt, with weights of their own unless told."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(groups):
        prompt = rng.integers(V, size=rng.integers(1, 12))
        for _ in range(rng.integers(1, 4)):
            said = rng.integers(V, size=rng.integers(1, 15))
            counts = rng.uniform(0.5, 2, len(said)) if weights is None else np.full(len(said), weights)
            found.append(Tokens(np.concatenate([prompt, said]), np.concatenate([np.zeros(len(prompt)), counts])))
    return found + [replace(turn, weights=turn.weights * (weights or 1.5)) for turn in story()]


def story(turns: int = 5) -> list[Tokens]:
    """Turns of an episode: what is shown grows, an end of its own is put to it each time, and something is said."""
    rng = np.random.default_rng(1)
    shown = rng.integers(V, size=20 + 3 * turns)
    prompts = [np.concatenate([shown[: 20 + 3 * turn], [3, 4]]) for turn in range(turns)]
    return [Tokens(np.concatenate([prompt, rng.integers(V, size=6)]), np.repeat([0.0, 1.0], [len(prompt), 6])) for prompt in prompts]


def alone(network: Any, example: Tokens) -> Tensor:
    """Log-probabilities of the tokens that have weight, by the model's own logits."""
    ids = torch.as_tensor(example.ids)
    chosen = np.flatnonzero(example.weights)
    return network(input_ids=ids[None]).logits[0].log_softmax(-1)[chosen - 1, ids[chosen]]


def total(network: Any, packed: Iterator[Pass]) -> Tensor:
    weight, bias = output_head(network)
    return sum(weighted_nll(hidden_states(network, laid), weight, laid.targets, laid.weights, bias=bias) for laid in packed)


def gradients(network: Any, loss: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(network.parameters()))])


@pytest.mark.parametrize("network", [model, gpt2, lambda: model(attn_implementation="eager")], ids=["llama", "gpt2", "eager"])
@pytest.mark.parametrize("pass_tokens", [1, 100, 10_000])
def test_packed_equals_alone(network: Any, pass_tokens: int) -> None:
    network, data = network(), examples()
    expected = -sum(alone(network, x) @ torch.as_tensor(x.weights[x.weights > 0], dtype=torch.float32) for x in data)
    found = total(network, pack(trees(data)[0], pass_tokens))
    torch.testing.assert_close(found, expected)
    a, b = gradients(network, found), gradients(network, expected)
    assert (a - b).norm() < 1e-5 * b.norm()


@pytest.mark.parametrize("longer", [0, 400])
def test_in_bfloat16_it_is_the_same_but_for_rounding(longer: int) -> None:
    network, data = model(), examples()
    before = np.random.default_rng(2).integers(V, size=longer)
    data = [Tokens(np.concatenate([before, x.ids]), np.concatenate([np.zeros(longer), x.weights])) for x in data]
    exact = gradients(network, total(network, pack(trees(data)[0])))
    with torch.autocast("cpu", torch.bfloat16):
        coarse = gradients(network, total(network, pack(trees(data)[0])))
    assert 1e-5 < float((coarse - exact).norm() / exact.norm()) < 0.03
    assert network.config._attn_implementation == "sdpa", "as it was"


def test_which_token_sees_which() -> None:
    branches = [Tokens(np.arange(3), np.ones(3)), Tokens(np.arange(2), np.ones(2))]
    (laid,) = pack([Tree(np.arange(4), branches, [4, 2]), Tree(np.arange(2), [branches[0]])])
    slots: list[list[int]] = []  # what each sees, padding included
    for some in laid.sight.stretches:
        offsets = torch.zeros(len(some.queries), dtype=torch.int64) if some.offsets is None else some.offsets
        for keys, offset in zip(some.keys.tolist(), offsets.tolist(), strict=True):
            slots += [keys[: offset + along + 1] for along in range(some.queries.shape[1])]
    context = [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    first = [[0, 1, 2, 3, *range(4, last + 1)] for last in (4, 5, 6)]
    second = [[0, 1, 7], [0, 1, 7, 8]]  # which left the context after two tokens
    other = [[*range(9, last + 1)] for last in range(9, 14)]  # a context with one branch reads on as one
    assert [slots[slot] for slot in laid.sight.order] == [*context, *first, *second, *other]


def test_the_loss_is_that_of_transformers_on_a_padded_batch() -> None:
    network, data = model(), examples(weights=1.0)
    width = max(len(x.ids) for x in data)
    ids, seen, labels = (torch.full((len(data), width), fill) for fill in (0, 0, -100))
    for row, x in enumerate(data):
        ids[row, : len(x.ids)], seen[row, : len(x.ids)] = torch.as_tensor(x.ids), 1
        labels[row, : len(x.ids)] = torch.as_tensor(np.where(x.weights > 0, x.ids, -100))
    expected = network(input_ids=ids, attention_mask=seen, labels=labels).loss
    found = total(network, pack(trees(data)[0])) / sum(x.weights.sum() for x in data)
    torch.testing.assert_close(found, expected)
    a, b = gradients(network, found), gradients(network, expected)
    assert (a - b).norm() < 1e-5 * b.norm()


def test_a_shared_prompt_gets_the_gradient_of_all_its_copies() -> None:
    network, data = model(), examples()
    shared, _ = trees(data)
    copies = [Tree(tree.prompt, [branch], [leaves]) for tree in shared for branch, leaves in zip(tree.branches, tree.leaves, strict=True)]
    assert len(shared) < len(copies)
    one, many = ([*pack(each, 64)] for each in (shared, copies))
    assert sum(laid.ids.numel() for laid in one) < sum(laid.ids.numel() for laid in many)
    a, b = (gradients(network, total(network, iter(each))) for each in (one, many))
    assert (a - b).norm() < 1e-5 * b.norm()


def test_a_growing_story_is_read_once() -> None:
    turns = story()
    [tree], order = trees(turns)
    assert len(tree.prompt) == 32 + 2 and sorted(order) == list(range(5))
    assert {int(turn): leaves for turn, leaves in zip(order, tree.leaves, strict=True)} == {4: 34, 3: 29, 2: 26, 1: 23, 0: 20}
    [laid] = pack([tree], 100)
    assert len(laid.ids) == 34 + 6 + 4 * (2 + 6)  # of the other prompts only the ends are read again
    assert len(trees([turns[0], Tokens(turns[4].ids[10:], turns[4].weights[10:])])[0]) == 2  # nothing in common, nothing shared


def test_owners_lead_back_to_the_examples() -> None:
    network, data = model(), examples()
    found, order = trees(data)
    singly: list[list[float]] = [[] for _ in data]
    for laid in pack(found, 100):
        values = logprobs(hidden_states(network, laid), output_head(network)[0], laid.targets)
        for owner, value in zip(order[laid.owners], values.tolist(), strict=True):
            singly[owner].append(value)
    for values, example in zip(singly, data, strict=True):
        torch.testing.assert_close(torch.tensor(values), alone(network, example).detach())


def test_ends_are_the_last_tokens_of_the_branches() -> None:
    network, data = model(), examples()
    found, order = trees(data)
    for laid in pack(found, 100):
        ends = hidden_states(network, laid, laid.ends)
        for state, branch in zip(ends, laid.branches, strict=True):
            ids = torch.as_tensor(data[order[branch]].ids)[None]
            torch.testing.assert_close(state, network.base_model(input_ids=ids).last_hidden_state[0, -1], rtol=1e-4, atol=1e-5)


def test_every_token_with_weight_is_there_once() -> None:
    data = examples()
    found, order = trees(data)
    assert sorted(order) == list(range(len(data)))
    batches = list(pack(found, 100))
    assert sum(laid.weights.sum().item() for laid in batches) == pytest.approx(sum(x.weights.sum() for x in data))
    assert sorted(branch for laid in batches for branch in laid.branches.tolist()) == list(range(len(data)))
    assert all(len(laid.ids) <= 100 or len(laid.branches) == 1 for laid in batches)


def test_weights_in_the_middle_of_a_conversation() -> None:
    network = model()
    example = Tokens(np.arange(1, 13), np.array([0, 0, 0, 1, 1, 0, 0, 0, 2, 0, 0.5, 0]))
    expected = -(alone(network, example) @ torch.tensor([1, 1, 2, 0.5]))
    torch.testing.assert_close(total(network, pack(trees([example])[0])), expected)


def test_branches_that_do_not_fit_take_the_prompt_along() -> None:
    tree = Tree(np.arange(10), [Tokens(np.full(20, which), np.ones(20)) for which in range(5)])
    assert [len(laid.ids) for laid in pack([tree], 50)] == [50, 50, 30]
    assert [len(laid.ids) for laid in pack([tree, tree], 250)] == [220]
    assert sorted(branch for laid in pack([tree], 50) for branch in laid.branches.tolist()) == list(range(5))
    assert {laid.depth for laid in pack([tree], 50)} == {30}
    assert [len(laid.ids) for laid in pack([Tree(np.arange(10), [Tokens(np.arange(90), np.ones(90))])], 50)] == [100]  # nothing is cut off


def test_nothing_is_padded_and_little_is_attended_to_in_vain() -> None:
    rng = np.random.default_rng(0)
    data = [Tree(rng.integers(V, size=length), [Tokens(rng.integers(V, size=5), np.ones(5))] * 2) for length in rng.integers(5, 200, 64)]
    for laid in pack(data, 1_000):
        assert sum(each.queries.numel() for each in laid.sight.stretches) < 2 * len(laid.ids) <= 2_000
    assert sum(len(laid.ids) for laid in pack(data, 1_000)) == sum(len(tree.prompt) + 10 for tree in data)


def test_examples_without_weight_predict_nothing() -> None:
    (laid,) = pack(trees([Tokens(np.arange(5), np.zeros(5))])[0])
    assert laid.targets.numel() == 0 and laid.ends.tolist() == [4]
    assert list(pack([])) == []


def test_a_first_token_with_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing stands before it"):
        list(pack(trees([Tokens(np.arange(3), np.ones(3))])[0]))


def test_adapters_are_read_through() -> None:
    peft = pytest.importorskip("peft")
    network = peft.get_peft_model(model(), peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")).eval()
    verify(network)
    data = examples()
    expected = -sum(alone(network, x) @ torch.as_tensor(x.weights[x.weights > 0], dtype=torch.float32) for x in data)
    torch.testing.assert_close(total(network, pack(trees(data)[0])), expected)


@pytest.mark.parametrize("network", [model, gpt2, lambda: model().bfloat16()], ids=["llama", "gpt2", "bfloat16"])
def test_models_that_can_be_laid_out_are_approved(network: Any) -> None:
    network = network().train()
    verify(network)
    assert network.training


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (CohereConfig(**WIDE, logit_scale=0.1), "scales or caps"),
        (Gemma2Config(**WIDE, head_dim=4, final_logit_softcapping=30.0), "scales or caps"),
        (MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=V), "as packed examples need"),
    ],
    ids=["scaled", "capped", "recurrent"],
)
def test_models_that_cannot_are_refused(config: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        verify(model(config))


def test_an_example_longer_than_the_window_is_refused() -> None:
    network = model(MistralConfig(**WIDE, sliding_window=8))
    verify(network)
    with pytest.raises(ConfigError, match="8 tokens at most, and an example has 12"):
        total(network, pack(trees([Tokens(np.arange(12), np.repeat([0, 1], 6))])[0]))
