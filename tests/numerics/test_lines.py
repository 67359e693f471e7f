"""Each distinct line is read once, and reading it later, in another batch or after it was forgotten gives the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from framework.config import CONF, build
from framework.lm.adapters import Lora
from framework.lm.encoder import LineEncoder
from framework.lm.lines import LineTable
from framework.lm.lookup import LookupEncoder
from framework.lm.pretrained import PretrainedEncoder

CPU = torch.device("cpu")
LINES = [
    "new client: nurse",
    "income: I am paid the same every month",
    "experience: none",
    "reaction: I would sell everything at once and never look at it again, whatever my adviser says about long horizons",
    "horizon: ten years",
    "client: lovely weather",
]


class Counting(LineEncoder):
    """A line's features are the sum and the length of its lower-cased bytes; remembers what it was asked to read."""

    shape = (1, 2)

    def __init__(self) -> None:
        super().__init__()
        self.read: list[bytes] = []
        self.weight = torch.nn.Parameter(torch.ones(1))

    def place(self, device: torch.device) -> None: ...

    def fit(self, lines: Sequence[str]) -> None: ...

    def tokens(self, lines: Sequence[str]) -> list[bytes]:
        return [line.lower().encode() for line in lines]

    def encode(self, tokens: Sequence[bytes]) -> Tensor:
        self.read += tokens
        return self.weight * torch.tensor([[[float(sum(line) % 251), float(len(line))]] for line in tokens])


def expected(line: str) -> list[float]:
    return [float(sum(line.lower().encode()) % 251), float(len(line))]


def features(table: LineTable, lines: Sequence[str]) -> list[list[float]]:
    """Through the table, line by line; asked for as the head asks, without repeats."""
    numbers = np.array(table.numbers(lines))
    distinct, index = np.unique(numbers, return_inverse=True)
    with torch.no_grad():
        found: list[list[float]] = table.features(distinct)[index][:, 0].tolist()
    return found


def test_each_distinct_line_is_read_once() -> None:
    encoder = Counting()
    table = LineTable(encoder, capacity=100)
    for lines in (["one", "two"], ["two", "three", "two"], ["one"], ["three", "one", "two"]):
        assert features(table, lines) == [expected(line) for line in lines]
    assert sorted(encoder.read) == [b"one", b"three", b"two"] and table.lines_read == 3


def test_lines_of_equal_tokens_are_one() -> None:
    encoder = Counting()
    table = LineTable(encoder, capacity=100)
    numbers = table.numbers(["Yes", "yes", "no", "YES", ""])
    assert numbers[0] == numbers[1] == numbers[3] != numbers[2] and numbers[4] == 0 and len(table) == 3
    assert features(table, ["Yes", "YES"]) == [expected("yes")] * 2 and encoder.read == [b"yes"]


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 1_000])
def test_forgetting_changes_nothing(capacity: int) -> None:
    rng, encoder = np.random.default_rng(0), Counting()
    table = LineTable(encoder, capacity)
    for _ in range(200):
        lines = [f"line {n}" for n in rng.choice(30, size=int(rng.integers(1, 6)), replace=False)]
        assert features(table, lines) == [expected(line) for line in lines]
        assert table._features is None or len(table._features) <= capacity
    assert table.lines_read == 30 if capacity == 1_000 else table.lines_read > 30


def test_the_longest_unused_is_forgotten() -> None:
    encoder = Counting()
    table = LineTable(encoder, capacity=3)
    for line in ("a", "b", "c", "a", "d"):  # d takes the place of b
        features(table, [line])
    encoder.read.clear()
    features(table, ["a", "c", "d"])
    assert encoder.read == []
    features(table, ["b"])
    assert encoder.read == [b"b"]


def test_a_table_is_restored(tmp_path: Path) -> None:
    first = LineTable(Counting(), capacity=3)
    for line in ("a", "b", "C", "c", "d"):
        features(first, [line])
    first.save(tmp_path)
    encoder = Counting()
    second = LineTable(encoder, capacity=3)
    second.load(tmp_path)
    assert second.numbers(["d", "c", "a", "new"]) == first.numbers(["d", "c", "a", "new"])
    assert features(second, ["b", "C", "d"]) == features(first, ["b", "C", "d"]) and encoder.read == []
    for line in ("e", "b", "a", "f", "C"):  # and it goes on forgetting alike
        assert features(second, [line]) == features(first, [line])
        assert second.lines_read == first.lines_read - 4
    assert json.loads((tmp_path / "lines.json").read_text())


def test_what_a_learning_reader_read_before_an_update_is_not_used_after(tmp_path: Path) -> None:
    encoder = Counting()
    encoder.trainable = True
    table = LineTable(encoder, capacity=10)
    line = np.array(table.numbers(["one"]))
    before = features(table, ["one"])
    table.features(line).sum().backward()  # type: ignore[no-untyped-call]
    assert encoder.weight.grad is not None and encoder.weight.grad.item() == pytest.approx(sum(expected("one")))
    with torch.no_grad():
        encoder.weight.mul_(2)
    table.save(tmp_path)  # here a run may be stopped
    resumed = LineTable(encoder, capacity=10)
    resumed.load(tmp_path)
    doubled = [[2 * value for value in before[0]]]
    assert features(table, ["one"]) == doubled and features(resumed, ["one"]) == doubled


# --- MiniLM ---


def reader(**changed: Any) -> PretrainedEncoder:
    encoder: PretrainedEncoder = build({**OmegaConf.load(CONF / "lm" / "minilm.yaml"), "dtype": "float32", **changed}, "lm")
    encoder.place(CPU)
    return encoder


@cache
def minilm() -> PretrainedEncoder:
    return reader()


def read(encoder: PretrainedEncoder, lines: Sequence[str]) -> Tensor:
    """Reads, whatever was read before."""
    if encoder._frozen is not None:
        encoder._frozen._states.clear()
    with torch.no_grad():
        return encoder.encode(encoder.tokens(lines))


def test_a_batch_by_length_is_line_by_line() -> None:
    together, apart = read(minilm(), LINES), torch.cat([read(minilm(), [line]) for line in LINES])
    assert together.shape == (len(LINES), 3, 384) and together.dtype == torch.float32
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(read(minilm(), LINES[::-1]), together.flip(0), rtol=1e-4, atol=1e-4)


def test_many_batches_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(minilm(), LINES)
    monkeypatch.setattr("framework.lm.pretrained._BATCH_TOKENS", 40)
    torch.testing.assert_close(read(minilm(), LINES), whole, rtol=1e-4, atol=1e-4)


def test_padding_has_no_influence() -> None:
    """A short line beside a very long one is what it is alone, and it is what transformers says by hand."""
    short = read(minilm(), [LINES[2], LINES[3] * 5])[0]
    ids = torch.tensor([minilm().tokenizer(LINES[2])["input_ids"]])
    with torch.no_grad():
        states = minilm().model(input_ids=ids, output_hidden_states=True).hidden_states
    by_hand = torch.stack([states[layer][0].mean(dim=0) for layer in (1, 3, 5)])
    torch.testing.assert_close(short, by_hand, rtol=1e-4, atol=1e-4)


def test_what_one_reader_has_read_another_on_the_same_model_need_not(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, lower, drawn = reader(), reader(), reader(layers=[1, 2, 3]), reader(weights="random")
    first = read(one, LINES)
    assert other.model is one.model and not {lower.model, drawn.model} & {one.model}
    runs = list[int]()
    hook = one.model.register_forward_hook(lambda _, args, states: runs.append(len(states.last_hidden_state)))
    other.fit(LINES)
    assert torch.equal(other.standardise(first), other.encode(other.tokens(LINES))) and not runs, "statistics are each reader's own"
    monkeypatch.setattr("framework.lm.pretrained._REMEMBERED", 2 * 4 * first[0].numel())
    again = [*LINES[1:3], "new: line", LINES[1]]
    found = one.encode(one.tokens(again))
    assert sum(runs) == 1 and torch.equal(found[[0, 1, 3]], first[[1, 2, 1]])
    assert one._frozen is not None and len(one._frozen._states) == 2, "the last lines alone"
    torch.testing.assert_close(one.encode(one.tokens(LINES)), first, rtol=1e-4, atol=1e-4)
    hook.remove()


def test_layers_above_the_last_one_asked_for_are_not_there() -> None:
    low = reader(layers=[1])
    assert len(low.model.encoder.layer) == 1  # type: ignore[union-attr, arg-type]
    torch.testing.assert_close(read(low, LINES)[:, 0], read(minilm(), LINES)[:, 0], rtol=1e-4, atol=1e-4)


def test_bfloat16_is_close() -> None:
    exact, coarse = read(minilm(), LINES), read(reader(dtype="bfloat16"), LINES)
    assert coarse.dtype == torch.float32
    assert torch.cosine_similarity(exact, coarse, dim=-1).min() > 0.999


def test_fitted_features_are_standard() -> None:
    encoder = reader(layers=[1])
    encoder.fit(LINES)
    fitted = read(encoder, LINES)
    torch.testing.assert_close(fitted.mean(dim=0), torch.zeros(1, 384), rtol=0, atol=1e-4)
    torch.testing.assert_close(fitted.std(dim=0), torch.ones(1, 384), rtol=1e-2, atol=1e-2)


def test_random_weights_are_a_control() -> None:
    one, again, other = (read(reader(weights="random", seed=seed, layers=[1]), LINES) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.allclose(one, other)
    assert not torch.allclose(one[:, 0], read(minilm(), LINES)[:, 0])


def adapted() -> PretrainedEncoder:
    encoder = PretrainedEncoder(minilm().path, minilm().package, layers=(1,), dtype="float32", adapter=Lora())
    encoder.place(CPU)
    return encoder


def test_no_two_lines_of_a_lookup_are_alike() -> None:
    reader = LookupEncoder(width=1_024)
    reader.place(CPU)
    codes = reader.encode(reader.tokens([*LINES, "experience: none ", "Experience: none"]))[:, 0]
    assert torch.equal(codes[:6], reader.encode(reader.tokens(LINES))[:, 0]), "a line has its code wherever it comes up"
    alike = (codes @ codes.T) / 1_024
    torch.testing.assert_close(alike, torch.eye(8), atol=0.2, rtol=0)


def test_an_adapter_begins_as_nothing() -> None:
    torch.testing.assert_close(read(adapted(), LINES)[:, 0], read(minilm(), LINES)[:, 0], rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_adapter_alone() -> None:
    encoder = adapted()
    encoder.encode(encoder.tokens(LINES)).square().sum().backward()  # type: ignore[no-untyped-call]
    reached = {name for name, value in encoder.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}
    learning = {name for name, value in encoder.named_parameters() if value.requires_grad}
    assert reached and all("lora_" in name for name in learning) and reached <= learning
    assert not read_with_gradients(minilm()).requires_grad


def learnt(encoder: PretrainedEncoder, lines: Sequence[str]) -> dict[str, Tensor]:
    """The gradients of what an adapter is given to learn from these lines."""
    encoder.zero_grad()
    encoder.encode(encoder.tokens(lines)).square().sum().backward()  # type: ignore[no-untyped-call]
    return {name: value.grad.clone() for name, value in encoder.named_parameters() if value.grad is not None}


def test_what_is_computed_again_has_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = adapted()
    kept = learnt(encoder, LINES)
    monkeypatch.setattr("framework.lm.pretrained._KEPT_TOKENS", 0)
    again = learnt(encoder, LINES)
    assert kept.keys() == again.keys() and all(torch.equal(again[name], value) for name, value in kept.items())


def test_a_learning_reader_meets_few_shapes() -> None:
    """Every new shape takes kernels and memory of its own, which a long run would gather."""
    encoder, shapes = adapted(), set[tuple[int, ...]]()
    encoder.model.register_forward_pre_hook(lambda _, args, given: shapes.add(tuple(given["input_ids"].shape)), with_kwargs=True)
    for number in range(1, 17):
        found = learnt(encoder, [f"{word} rain" + " again" * (number % 5) for word in "abcdefghijklmnop"[:number]])
        assert all(gradient.isfinite().all() for gradient in found.values())
    assert shapes == {(8, 8), (16, 8)}


def read_with_gradients(encoder: PretrainedEncoder) -> Tensor:
    return encoder.encode(encoder.tokens(LINES))


def test_only_what_is_learned_is_kept() -> None:
    assert set(minilm().state_dict()) == {"standardise.mean", "standardise.scale"}
    learned = set(adapted().state_dict()) - {"standardise.mean", "standardise.scale"}
    assert learned and all("lora_" in name for name in learned)
