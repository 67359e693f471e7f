"""The head: forbidden acts have no chance, lines are a set, and its numbers are those of a computation by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from framework.errors import CheckpointError
from framework.lm.tfidf import TfidfEncoder
from framework.policies.head import Dropout, HeadPolicy
from framework.seeding import seed_everything
from framework.types import Bools, Observations

CPU = torch.device("cpu")
TEXTS = ["it rains\nthe grass is wet", "it rains", "the sun shines\nit is warm\nthe grass is dry", "the sun shines"]
MASKS = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 0, 0]], dtype=bool)


def fresh(**settings: int) -> HeadPolicy:
    """A policy whose scores are far from uniform."""
    seed_everything(1)
    policy = HeadPolicy(TfidfEncoder(max_features=40), n_acts=4, **{"width": 16, "max_lines": 6, **settings})
    policy.prepare(TEXTS, CPU)
    with torch.no_grad():
        policy.network.head.actor[-1].weight.mul_(100)
    return policy


def observations(texts: list[str] = TEXTS, masks: Bools = MASKS) -> Observations:
    return Observations(texts, masks, np.zeros((len(texts), 1), np.int64))


def scores(policy: HeadPolicy, texts: list[str] = TEXTS, masks: Bools = MASKS) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        found: tuple[torch.Tensor, torch.Tensor] = policy.network(torch.as_tensor(policy.encode(texts, masks)))
    return found


def test_forbidden_acts_have_no_chance() -> None:
    policy = fresh()
    chances = torch.softmax(scores(policy)[0], dim=1).numpy()
    assert (chances[~MASKS] == 0).all() and chances.sum(axis=1) == pytest.approx(np.ones(4))
    for deterministic in (True, False):
        taken = np.array([policy.act(observations(), deterministic) for _ in range(50)])
        assert all(MASKS[row, act] for acts in taken for row, act in enumerate(acts))


def test_acts_are_drawn_as_often_as_they_are_likely() -> None:
    policy, n = fresh(), 4_000
    chances = torch.softmax(scores(policy)[0], dim=1).numpy()
    taken = policy.act(observations(TEXTS * n, np.tile(MASKS, (n, 1)))).reshape(n, 4)
    for act in range(4):
        error = np.sqrt(chances[:, act] * (1 - chances[:, act]) / n)
        assert (np.abs((taken == act).mean(axis=0) - chances[:, act]) <= 4 * error + 1e-9).all()


def test_the_best_act_is_taken_when_asked_for() -> None:
    policy = fresh()
    assert (policy.act(observations(), deterministic=True) == scores(policy)[0].argmax(dim=1).numpy()).all()


def test_the_order_of_lines_does_not_matter_but_their_number_does() -> None:
    policy = fresh()
    turned = ["\n".join(reversed(text.split("\n"))) for text in TEXTS]
    torch.testing.assert_close(scores(policy, turned)[0], scores(policy)[0])
    doubled = [f"{text}\n{text}" for text in TEXTS]
    assert not torch.allclose(scores(policy, doubled)[0][MASKS], scores(policy)[0][MASKS])


def test_company_in_a_batch_does_not_matter() -> None:
    policy = fresh()
    together = scores(policy)[0]
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(scores(policy, [text], MASKS[row : row + 1])[0][0], together[row])


def test_an_empty_observation_is_one_too() -> None:
    values = scores(fresh(), ["", "it rains"], MASKS[:2])[1]
    assert values.isfinite().all() and values[0] != values[1]


def test_of_too_many_lines_the_first_and_the_last_are_read() -> None:
    policy = fresh(max_lines=4)
    words = ["it rains", "the grass is wet", "it is warm", "the sun shines", "the grass is dry"]
    kept = "\n".join([*words[:2], *words[-2:]])
    torch.testing.assert_close(scores(policy, ["\n".join(words)], MASKS[:1]), scores(policy, [kept], MASKS[:1]))


def test_logprobs_entropy_and_values_by_hand() -> None:
    """log pi(a) = s_a - log sum_allowed exp s;  H = - sum_allowed pi log pi;  from features with numpy alone."""
    policy, actions = fresh(), np.array([3, 0, 2, 1])
    head = policy.network.head

    def layer(module: torch.nn.Module, x: np.ndarray) -> np.ndarray:
        return np.asarray(x @ module.weight.detach().numpy().T + module.bias.detach().numpy())  # type: ignore[operator, union-attr]

    def branch(modules: torch.nn.Sequential, x: np.ndarray) -> np.ndarray:
        normal = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        norm = modules[0]
        hidden = layer(modules[1], normal * norm.weight.detach().numpy() + norm.bias.detach().numpy())
        return layer(modules[5], np.maximum(layer(modules[3], np.maximum(hidden, 0)), 0))

    meaning = []
    for text in TEXTS:
        lines = policy.lm.encode(policy.lm.tokens(text.split("\n"))).bfloat16().float().flatten(1).numpy()  # the cache keeps bfloat16
        meaning.append(layer(head.gather, np.maximum(layer(head.read[2], lines), 0).sum(axis=0)))
    raw, values = branch(head.actor, np.array(meaning)), branch(head.critic, np.array(meaning))[:, 0]
    logits = np.where(MASKS, raw, -np.inf)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    entropy = -np.where(MASKS, np.exp(logprobs) * np.where(MASKS, logprobs, 0), 0).sum(axis=1)

    found = policy.evaluate(observations(), actions)
    assert found.logprobs.tolist() == pytest.approx(logprobs[range(4), actions].tolist(), abs=1e-4)
    assert found.entropy.tolist() == pytest.approx(entropy.tolist(), abs=1e-4)
    assert found.values.tolist() == pytest.approx(values.tolist(), abs=1e-4)
    assert found.entropy[2].item() == pytest.approx(0, abs=1e-6) == found.logprobs[2].item()  # a single act is allowed there


def test_a_policy_is_restored(tmp_path: Path) -> None:
    policy = fresh()
    policy.save(tmp_path)
    again = HeadPolicy(TfidfEncoder(max_features=40), n_acts=4, width=16, max_lines=6)
    again.load(tmp_path, CPU)
    for one, other in zip(scores(policy), scores(again), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("harm", ["another width", "a weight missing", "a weight too many", "no tensors at all"])
def test_another_policy_is_refused(harm: str, tmp_path: Path) -> None:
    fresh().save(tmp_path)
    path = tmp_path / "policy.safetensors"
    kept = load_file(path)
    other = HeadPolicy(TfidfEncoder(max_features=40), n_acts=4, width=32 if harm == "another width" else 16, max_lines=6)
    if harm == "a weight missing":
        save_file({name: value for name, value in kept.items() if name != "head.read.2.weight"}, path)
    elif harm == "a weight too many":
        save_file({**kept, "head.extra": torch.zeros(1)}, path)
    elif harm == "no tensors at all":
        save_file({}, path)
    with pytest.raises(CheckpointError, match="another configuration"):
        other.load(tmp_path, CPU)


def test_a_target_network_is_a_copy() -> None:
    policy = fresh()
    twin = policy.network.twin()
    encoded = torch.as_tensor(policy.encode(TEXTS, MASKS))
    before = twin(encoded)[0].detach().clone()
    with torch.no_grad():
        policy.network.head.actor[-1].weight.mul_(2)
    assert torch.equal(twin(encoded)[0], before) and not torch.allclose(policy.network(encoded)[0], before)
    assert twin.lm is policy.network.lm and twin.lines is policy.network.lines


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 1.0])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    dropout, features = Dropout(p), torch.ones(401, 1_001, requires_grad=True)
    shown = dropout(features)
    shown.sum().backward()
    dropped = float((shown == 0).float().mean())
    assert dropped == pytest.approx(p, abs=0.005) and features.grad is not None and torch.equal(features.grad, shown)
    assert p == 1.0 or shown.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(dropout.eval()(features), features)
