"""Decoding: what is written and with which probability, against transformers' own generate, its logits processors and plain forward passes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.stats import chisquare
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import framework.lm.generate as engine
from framework.errors import ConfigError, TrainingError
from framework.lm.decoding import decoding
from framework.lm.generate import generate, stream
from framework.lm.read_before import ReadBefore
from framework.lm.sampling import draw, truncate
from framework.types import Completion, Ints, Sampling

V = 90
END = 1
SHAPE = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=4),
    "llama, grouped queries": LlamaConfig(**SHAPE, num_key_value_heads=2),
    "qwen2": Qwen2Config(**SHAPE, num_key_value_heads=1, tie_word_embeddings=True),
    "gpt2": GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=128),
    "mistral, long window": MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=64),
}
PROMPTS = [np.array(ids) for ids in ([5, 9, 3, 7, 7, 20, 4], [8], [11, 2, 30], [8], [40, 41, 42, 43], [6, 6, 6])]


def model(kind: str = "llama, grouped queries", sharpness: float = 8.0) -> Any:
    """A random model; its head is sharpened so that tokens differ clearly in likelihood."""
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[kind])
    config.eos_token_id = config.bos_token_id = config.pad_token_id = None
    network = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)  # biases and norms too
        network.get_output_embeddings().weight.mul_(sharpness)
    return network


def text(ids: Ints) -> str:
    """A letter or sign a token: token 33 is A."""
    return "".join(chr(32 + int(token)) for token in ids)


def run(
    network: Any,
    prompts: Sequence[Ints] = PROMPTS,
    n: int = 1,
    seed: int = 0,
    allowed: Any = None,
    end: Sequence[int] = (),
    before: ReadBefore | None = None,
    **how: Any,
) -> Any:
    sampling, generator = Sampling(**{"max_tokens": 12, **how}), torch.Generator().manual_seed(seed)
    return generate(network, prompts, sampling, n, end_ids=end, decode=text, generator=generator, allowed=allowed, before=before)


def ids(completions: Sequence[Sequence[Completion]]) -> list[list[list[int]]]:
    return [[completion.ids.tolist() for completion in row] for row in completions]


def logits(network: Any, prompt: Ints, completion: Ints) -> torch.Tensor:
    """Of a plain forward pass, for each token of the completion, `[T, V]`."""
    with torch.no_grad():
        return network(torch.from_numpy(np.concatenate([prompt, completion]))[None]).logits[0, len(prompt) - 1 : -1]


def logprobs(network: Any, prompt: Ints, completion: Ints, temperature: float = 1.0) -> torch.Tensor:
    found = (logits(network, prompt, completion) / temperature).log_softmax(-1)
    return found.gather(-1, torch.from_numpy(completion)[:, None])[:, 0]


@pytest.mark.parametrize("kind", CONFIGS)
def test_greedy_ids_are_those_of_transformers(kind: str) -> None:
    network, width = model(kind), max(map(len, PROMPTS))
    padded = torch.tensor([[0] * (width - len(prompt)) + prompt.tolist() for prompt in PROMPTS])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    expected = network.generate(input_ids=padded, attention_mask=mask, do_sample=False, max_new_tokens=12, pad_token_id=0)[:, width:]
    assert [row for [row] in ids(run(network, temperature=0))] == expected.tolist()
    assert [row for [row, _] in ids(run(network, n=2, temperature=0))] == expected.tolist()


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_kept_logprobs_are_those_of_a_forward_pass(kind: str, temperature: float) -> None:
    network = model(kind)
    for prompt, row in zip(PROMPTS, run(network, n=3, temperature=temperature, top_k=20, top_p=0.9), strict=True):
        for completion in row:
            expected = logprobs(network, prompt, completion.ids, temperature or 1.0)
            assert torch.allclose(torch.from_numpy(completion.logprobs).float(), expected, atol=2e-5)


def test_tokens_come_as_often_as_they_are_likely() -> None:
    network, draws = model(sharpness=3), 8_000
    [row] = run(network, PROMPTS[:1], n=draws, max_tokens=2, temperature=1.3)
    first = np.bincount([completion.ids[0] for completion in row], minlength=V)
    expected = (logits(network, PROMPTS[0], np.array([0]))[0] / 1.3).softmax(-1).double().numpy()
    assert chisquare(first, expected / expected.sum() * draws).pvalue > 1e-3
    common = first.argmax()
    second = np.bincount([completion.ids[1] for completion in row if completion.ids[0] == common], minlength=V)
    expected = (logits(network, PROMPTS[0], np.array([common, 0]))[1] / 1.3).softmax(-1).double().numpy()
    often = expected * second.sum() > 5
    counts, likely = np.append(second[often], second[~often].sum()), np.append(expected[often], expected[~often].sum())
    assert chisquare(counts, likely / likely.sum() * second.sum()).pvalue > 1e-3


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.9), (0, 0.3), (7, 1.0), (7, 0.8), (500, 0.99), (1, 0.5), (0, 1e-6)])
def test_top_k_and_top_p_keep_what_transformers_keeps(top_k: int, top_p: float) -> None:
    scores = torch.randn(200, V, generator=torch.Generator().manual_seed(0)) * 3
    kept = scores
    for warper in ([TopKLogitsWarper(top_k)] if top_k else []) + ([TopPLogitsWarper(top_p)] if top_p < 1 else []):
        kept = warper(None, kept)
    assert torch.equal(truncate(scores.softmax(-1), top_k, top_p) > 0, kept.isfinite())


def test_nothing_cut_off_is_drawn() -> None:
    scores = torch.randn(1, V, generator=torch.Generator().manual_seed(0)).expand(4, V)
    uniforms = torch.tensor([0.0, 0.5, 1 - 2**-24, 1 - 2**-24])
    kept = truncate(scores[:1].softmax(-1), 5, 0.8)[0] > 0
    tokens, found = draw(scores, uniforms, Sampling(1, top_k=5, top_p=0.8))
    assert kept[tokens].all()
    assert torch.allclose(found, scores.log_softmax(-1).gather(-1, tokens[:, None])[:, 0])


def test_a_seed_gives_the_same_again_and_another_seed_another() -> None:
    network = model()
    assert ids(run(network, n=3)) == ids(run(network, n=3)) != ids(run(network, n=3, seed=1))


def test_samples_of_a_prompt_differ_and_equal_prompts_share_their_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    network, read = model(), []
    monkeypatch.setattr(engine, "_read", lambda *args, plain=engine._read: read.append([len(prompt) for prompt in args[2]]) or plain(*args))
    found = run(network, n=4)
    assert read == [[1, 3, 3, 4, 7]]
    assert len({tuple(completion.ids) for row in found for completion in row}) == 24


def test_what_a_row_says_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model()
    found = ids(run(network, n=3))
    assert ids(run(network, PROMPTS[:2], n=3)) == found[:2]
    assert ids(run(network, [*PROMPTS[:2], np.array([3, 3]), *PROMPTS[3:]], n=3))[3:] == found[3:]
    monkeypatch.setattr(engine, "_CACHE_TOKENS", 40)
    monkeypatch.setattr(engine, "_PASS_TOKENS", 8)
    assert ids(run(network, n=3)) == found


@pytest.mark.parametrize("shrink", [0.0, 7 / 8, 1.0])
def test_rows_that_end_change_nothing_for_the_others(shrink: float, monkeypatch: pytest.MonkeyPatch) -> None:
    network = model(sharpness=2)
    endless = ids(run(network, n=5, max_tokens=20))
    monkeypatch.setattr(engine, "_SHRINK", shrink)
    ends = list(range(0, V, 9))
    found = run(network, n=5, max_tokens=20, end=ends)
    lengths = [len(completion.ids) for row in found for completion in row]
    assert min(lengths) < 5 and max(lengths) > 12
    for row, whole in zip(found, endless, strict=True):
        for completion, tokens in zip(row, whole, strict=True):
            place = next((place for place, token in enumerate(tokens) if token in ends), None)
            assert completion.ids.tolist() == (tokens if place is None else tokens[: place + 1])
            assert completion.finish_reason == ("length" if place is None else "stop")
            assert completion.text == text(tokens[:place])


def test_stop_strings_end_a_completion_and_are_cut_off() -> None:
    network = model(sharpness=2)
    whole = run(network, max_tokens=20)
    stops = [row[0].text[6:9] for row in whole]  # three tokens each
    for (completion,), (before,) in zip(run(network, max_tokens=20, stop=stops), whole, strict=True):
        place = min(found for stop in stops if (found := before.text.find(stop)) >= 0)
        assert completion.text == before.text[:place]
        assert completion.ids.tolist() == before.ids[: place + 3].tolist()
        assert completion.logprobs == pytest.approx(before.logprobs[: place + 3], abs=1e-5)
        assert completion.finish_reason == "stop"


def test_a_stop_string_is_found_where_tokens_are_parts_of_characters() -> None:
    network = model(sharpness=2)
    [[whole]] = run(network, PROMPTS[:1])

    def as_bytes(tokens: Ints) -> str:
        spelt = {int(token): byte for token, byte in zip(whole.ids[2:6], "é!".encode() + b"z", strict=True)}
        return b"".join(bytes([spelt.get(int(token), 46)]) for token in tokens).decode(errors="replace")

    [[completion]] = generate(network, PROMPTS[:1], Sampling(12, stop=["é!z"]), end_ids=(), decode=as_bytes, generator=torch.Generator().manual_seed(0))
    assert (completion.text, len(completion.ids), completion.finish_reason) == ("..", 6, "stop")


@pytest.mark.parametrize("stop", [(), ("zz", "~")])
def test_streamed_pieces_are_the_text(stop: tuple[str, ...]) -> None:
    network = model(sharpness=2)
    sampling = Sampling(20, stop=stop)
    [[expected]] = run(network, PROMPTS[:1], max_tokens=20, stop=stop)
    pieces = stream(network, PROMPTS[0], sampling, end_ids=(), decode=text, generator=torch.Generator().manual_seed(0))
    said = []
    while True:
        try:
            said.append(next(pieces))
        except StopIteration as end:
            completion = end.value
            break
    assert "".join(said) == completion.text == expected.text and len(said) > 10
    assert completion.ids.tolist() == expected.ids.tolist()


def test_what_may_become_a_stop_string_is_held_back() -> None:
    ending = engine.Ending(Sampling(1, stop=["\nUser:", "##"]), (), text)
    assert ending.settled("well\nUse") == 4 and ending.settled("well\nUsed") == 9
    assert ending.settled("a#") == 1 and ending.settled("caf\N{REPLACEMENT CHARACTER}") == 3


ACTS = [np.array(act) for act in ([10, 11, END], [10, 12, 13, END], [20, END], [10, 11, 14, END])]


def test_only_allowed_sequences_are_said_with_renormalised_logprobs() -> None:
    network = model(sharpness=2)
    found = run(network, PROMPTS[:2], n=400, allowed=[ACTS, ACTS[:2]], end=[END], temperature=1.5)
    for prompt, acts, row in zip(PROMPTS, [ACTS, ACTS[:2]], found, strict=False):
        scores = []
        for act in acts:
            options = [sorted({other[place] for other in acts if other[:place].tolist() == act[:place].tolist()}) for place in range(len(act))]
            each = [at[tokens].log_softmax(-1)[tokens.index(token)] for at, tokens, token in zip(logits(network, prompt, act) / 1.5, options, act, strict=True)]
            scores.append(torch.stack(each))
        counts = [sum(completion.ids.tolist() == act.tolist() for completion in row) for act in acts]
        assert sum(counts) == 400
        likely = np.exp([score.double().sum().item() for score in scores])
        assert likely.sum() == pytest.approx(1, abs=1e-5)
        assert chisquare(counts, likely / likely.sum() * 400).pvalue > 1e-3
        for completion in row[:20]:
            expected = scores[[act.tolist() for act in acts].index(completion.ids.tolist())]
            assert completion.logprobs == pytest.approx(expected.numpy(), abs=1e-5)
            assert completion.finish_reason == "stop"


@pytest.mark.parametrize("allowed", [[], [ACTS[0], ACTS[0][:2]], [np.arange(50)], [np.array([], int)]])
def test_sets_of_sequences_that_cannot_be_kept_to_are_refused(allowed: list[Ints]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        run(model(), PROMPTS[:1], allowed=[allowed])


def test_every_prompt_needs_completions_and_its_own_set() -> None:
    with pytest.raises(ValueError, match="n must be at least 1"):
        run(model(), n=0)
    with pytest.raises(ValueError, match="each of 6 prompts"):
        run(model(), allowed=[ACTS])


def adapted() -> Any:
    """A model with an adapter that matters."""
    network = get_peft_model(model(), LoraConfig(r=4, lora_alpha=8, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return network


def test_an_adapter_is_part_of_the_model_and_is_left_as_it_was() -> None:
    network = adapted().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = run(network, n=2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules()) and not any("forward" in vars(module) for module in network.modules() if module is not network)
    assert ids(found) == ids(run(copy.deepcopy(network).merge_and_unload(), n=2))
    with network.disable_adapter():
        assert ids(run(network, n=2)) == ids(run(model(), n=2)) != ids(found)
    network.eval()
    for prompt, row in zip(PROMPTS, found, strict=True):
        assert row[0].logprobs == pytest.approx(logprobs(network, prompt, row[0].ids).numpy(), abs=1e-4)


@pytest.mark.parametrize("make", [model, adapted])
def test_attention_and_mode_are_restored_even_after_an_error(make: Any) -> None:
    network = make()
    inner = network.get_base_model() if hasattr(network, "get_base_model") else network
    inner.set_attn_implementation("eager")
    inner.model.layers[0].train()
    ready = ExitStack()
    assert ready.enter_context(decoding(network, 64)) is inner
    assert not any(module.training for module in inner.modules())
    with pytest.raises(RuntimeError, match="stop here"), ready:
        raise RuntimeError("stop here")
    assert inner.config._attn_implementation == "eager"
    assert inner.model.layers[0].training and not inner.model.layers[1].training


@pytest.mark.parametrize("make", [model, adapted])
def test_bfloat16_and_autocast_decode_what_they_compute(make: Any) -> None:
    half = make().eval().to(torch.bfloat16 if make is model else torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=make is adapted):
        for prompt, row in zip(PROMPTS, run(half, n=2), strict=True):
            assert row[0].logprobs == pytest.approx(logprobs(half, prompt, row[0].ids).float().numpy(), abs=0.1)


def test_models_that_remember_otherwise_are_refused() -> None:
    shape = {**SHAPE, "num_key_value_heads": 2}
    mamba = AutoModelForCausalLM.from_config(MambaConfig(vocab_size=V, hidden_size=16, num_hidden_layers=1, state_size=4))
    window = AutoModelForCausalLM.from_config(MistralConfig(**shape, sliding_window=16))
    with pytest.raises(ConfigError, match="cannot be decoded"):
        run(mamba)
    with pytest.raises(ConfigError, match="16 tokens at a time"):
        run(window)
    assert window.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("name", "value"), [("max_tokens", 0), ("temperature", -1.0), ("top_p", 0.0), ("top_p", 1.1), ("top_k", -1), ("stop", ("",)), ("max_tokens", 122)]
)
def test_settings_that_cannot_be_used_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"sampling.{name}"):
        run(model(), **{name: value})


def test_a_prompt_needs_a_token_and_no_prompt_needs_nothing() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        run(model(), [np.array([], int)])
    assert run(model(), []) == []


def test_logits_that_are_not_numbers_are_never_drawn_from() -> None:
    network = model()
    with torch.no_grad():
        network.get_output_embeddings().weight[3] = torch.nan
    with pytest.raises(TrainingError, match="not finite"):
        run(network)


def grown(seed: int) -> list[list[Ints]]:
    """Three turns of six prompts, each of which goes on from what it was, though one turns off and one is new; one ends."""
    rng = np.random.default_rng(seed)
    turns = [[rng.integers(2, V, size) for size in (9, 14, 6, 11, 9, 20)]]
    for _ in range(2):
        turns.append([np.concatenate([prompt[:-2], rng.integers(2, V, rng.integers(3, 8))]) for prompt in turns[-1]])
    turns[1][2] = rng.integers(2, V, 13)
    turns[2][0] = np.concatenate([turns[1][0][:-4], rng.integers(2, V, 3)])
    return [turns[0], turns[1], turns[2][:-1]]


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_was_read_before_is_not_read_again_and_says_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, before, read = model(kind), ReadBefore(), list[int]()
    monkeypatch.setattr(engine, "_PASS_TOKENS", 40)  # several passes a turn
    network.get_input_embeddings().register_forward_pre_hook(lambda module, given: read.append(given[0].numel()))
    for turn, prompts in enumerate(grown(0)):
        fresh = run(network, prompts, n=2)
        once = sum(read)
        read.clear()
        found = run(network, prompts, n=2, before=before)
        assert ids(found) == ids(fresh)
        for row, whole in zip(found, fresh, strict=True):
            for completion, other in zip(row, whole, strict=True):
                assert completion.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert sum(read) <= once if turn == 0 else sum(read) < once - sum(map(len, prompts)) / 2
        read.clear()


def test_prompts_that_begin_otherwise_are_read_anew() -> None:
    before = ReadBefore()
    assert [part.tolist() for part in before.beginnings([np.array([5, 6])])] == [[0], [0]]
    before.keep([np.array([5, 6, 7, 8]), np.array([5, 6, 7, 9, 3, 4]), np.array([2])], {})
    prompts = [[5, 6, 7, 9, 3, 1, 1], [5, 6, 7, 8], [5, 6, 7, 8, 2], [5, 9, 9, 9], [2, 3], [2]]
    rows, common = before.beginnings([np.array(prompt) for prompt in prompts])
    assert rows[:3].tolist() == [1, 0, 0] and common.tolist() == [5, 3, 4, 0, 1, 0]
