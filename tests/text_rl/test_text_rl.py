"""Policy gradients in words, number by number: against plain autograd, by hand, and resumed against uninterrupted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from speakers import ACTS, CPU, OneTurn, TwoTurns, algorithm, fresh, learn, speaker
from torch import Tensor

from framework.algorithms.diagnosis import Diagnosis
from framework.algorithms.policy_gradient import GroupedPolicyGradient, PolicyGradient, Reference
from framework.algorithms.ppo_text import TextPPO
from framework.algorithms.turns import Batch, Played, Turn, play
from framework.errors import TrainingError
from framework.interfaces import Learning, SpeakingPolicy
from framework.lm.adapters import Full, Lora
from framework.policies.generative import GenerativePolicy
from framework.seeding import chance_apart
from framework.types import Message, Observations, Tokens, Transition, Utterance

BATCH_SIZE = 64  # turns an update, more than are ever played


def plain(policy: GenerativePolicy, said: Utterance, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of what was said, by a plain forward pass, `[T]`."""
    ids, n = torch.from_numpy(said.tokens.ids), len(said.logprobs)
    logits = policy.lm.model(ids[None]).logits[0, -n - 1 : -1]  # type: ignore[attr-defined]
    return (logits / temperature).log_softmax(-1).gather(-1, ids[-n:, None])[:, 0]


def batch(policy: SpeakingPolicy, world: type[OneTurn] = TwoTurns, episodes: int = 8) -> Batch:
    return Batch.of(play(policy, [world() for _ in range(episodes)], list(range(episodes))), CPU)


def scored(policy: SpeakingPolicy, said: list[Utterance]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all draws and states of all prompts, in order."""
    parts = list(policy.score(said))
    order, rows = torch.cat([part.draws for part in parts]).argsort(), torch.cat([part.examples for part in parts]).argsort()
    return torch.cat([part.logprobs for part in parts])[order], torch.cat([part.states for part in parts])[rows]


@pytest.mark.parametrize("adapter", [Full(), Lora()], ids=["full", "lora"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_what_was_kept_when_sampling_is_what_is_computed_again(adapter: Full | Lora, temperature: float, micro: Path) -> None:
    policy = fresh(micro, adapter=adapter, temperature=temperature)
    played = batch(policy)
    logprobs, states = scored(policy, list(played.said))
    torch.testing.assert_close(logprobs, played.logprobs, rtol=0, atol=2e-5)
    torch.testing.assert_close(logprobs, torch.cat([plain(policy, said, temperature) for said in played.said]), rtol=0, atol=2e-5)
    torch.testing.assert_close(states, policy.states([said.observation for said in played.said]), rtol=0, atol=2e-5)
    torch.testing.assert_close(states, torch.from_numpy(np.stack([said.state for said in played.said])), rtol=0, atol=2e-5)  # type: ignore[misc]


def test_in_bfloat16_it_is_computed_again_as_nearly_as_that_goes(micro: Path) -> None:
    policy = fresh(micro, dtype="bfloat16")
    played = batch(policy)
    logprobs, states = scored(policy, list(played.said))
    torch.testing.assert_close(logprobs, played.logprobs, rtol=0, atol=5e-2)
    assert not torch.equal(logprobs, torch.cat([plain(policy, said) for said in played.said]))  # which is float32
    assert logprobs.dtype == states.dtype == torch.float32


def first_gradient(
    policy: GenerativePolicy, algo: PolicyGradient, monkeypatch: pytest.MonkeyPatch, world: type[OneTurn] = TwoTurns
) -> tuple[list[Tensor], Batch]:
    """What the first batch would have changed, and that batch."""
    seen: list[Batch] = []
    monkeypatch.setattr(type(algo), "update", lambda self: None)
    monkeypatch.setattr(type(algo), "account", lambda self, played, metrics: seen.append(played))
    monkeypatch.setattr(type(algo), "goes_on", lambda self, run: not seen)
    learn(policy, world, algo)
    return [parameter.grad.clone() for parameter in policy.lm.parameters() if parameter.grad is not None], seen[0]


def by_hand(loss: str, played: Batch) -> Callable[[int, int], float]:
    """The weight of the log-probabilities of a turn: its advantage, times what each of its tokens counts."""
    totals = np.array([episode.total for episode in played.played]).reshape(-1, 4)
    centred = totals - totals.mean(1, keepdims=True)
    advantages = (centred if loss in ("dr_grpo",) else centred / (totals.std(1, ddof=1, keepdims=True) + 1e-4)).reshape(-1)
    lengths = [len(said.logprobs) for said in played.said]
    counts = {"grpo": lambda n: len(lengths) * n, "gspo": lambda n: len(lengths) * n, "dr_grpo": lambda n: BATCH_SIZE * max(lengths)}
    return lambda turn, n: float(advantages[played.episodes[turn]]) / counts.get(loss, lambda n: sum(lengths))(n)


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "gspo", "cispo"])
def test_a_step_of_grpo_is_the_plain_policy_gradient(loss: str, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = speaker(taught, TwoTurns)
    found, played = first_gradient(policy, algorithm("grpo", loss=loss, n_groups=2, group_size=4, batch_size=BATCH_SIZE), monkeypatch)
    weight = by_hand(loss, played)
    same_gradient(found, policy, played, [weight(turn, len(said.logprobs)) for turn, said in enumerate(played.said)])


class Leaving(TwoTurns):
    """The same, but `left` ends it at once."""

    def act(self, action: int) -> Transition:
        moved = super().act(action)
        return replace(moved, terminated=moved.terminated or self.lines[1] == "a")


def test_credit_by_turns_is_what_came_from_them_on(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = speaker(taught, Leaving)
    algo = algorithm("grpo", loss="dr_grpo", credit="turn", n_groups=2, group_size=4, batch_size=BATCH_SIZE)
    found, played = first_gradient(policy, algo, monkeypatch, Leaving)
    earned = [[turn.reward for turn in episode.turns] for episode in played.played]
    lengths, weights = [len(said.logprobs) for said in played.said], list[float]()
    for number, rewards in enumerate(earned):
        group = earned[number // 4 * 4 : number // 4 * 4 + 4]
        weights += [(sum(rewards[t:]) - sum(sum(other[t:]) for other in group) / 4) / (BATCH_SIZE * max(lengths)) for t in range(len(rewards))]
    assert len({len(rewards) for rewards in earned}) > 1, "some ended before others"
    same_gradient(found, policy, played, weights)


def same_gradient(found: list[Tensor], policy: GenerativePolicy, played: Batch, weights: Sequence[float]) -> None:
    """Whether a gradient is that of the turns' log-probabilities by a plain forward pass, each turn's weighted alike for all its tokens."""
    policy.lm.model.zero_grad()  # type: ignore[attr-defined]
    for weight, said in zip(weights, played.said, strict=True):
        (-weight * plain(policy, said).sum()).backward()
    assert max(float(gradient.abs().max()) for gradient in found) > 1e-4
    for gradient, parameter in zip(found, policy.lm.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("advantage", ["rloo", "reinforce_plus_plus"])
def test_a_step_of_reinforce_is_the_plain_policy_gradient(advantage: str, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = speaker(taught, TwoTurns)
    found, played = first_gradient(policy, algorithm("reinforce", advantage=advantage, n_groups=2, group_size=4), monkeypatch)
    earned = [[turn.reward for turn in episode.turns] for episode in played.played]
    if advantage == "rloo":
        others = [sum(map(sum, earned[number - number % 4 : number - number % 4 + 4])) - sum(row) for number, row in enumerate(earned)]
        worth = [sum(row) - rest / 3 for row, rest in zip(earned, others, strict=True) for _ in row]
    else:
        to_come = np.array([sum(row[turn:]) for row in earned for turn in range(len(row))])
        worth = list((to_come - to_come.mean()) / to_come.std(ddof=1))
    longest = max(len(said.logprobs) for said in played.said)
    assert longest > 1, "a turn has several tokens"
    same_gradient(found, policy, played, [each / (len(earned) * longest) for each in worth])


@pytest.mark.parametrize("name", ["grpo", "reinforce"])
def test_a_group_in_which_all_earned_the_same_is_not_read(name: str, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = speaker(taught, TwoTurns)
    settings = {"loss": "dr_grpo", "batch_size": BATCH_SIZE} if name == "grpo" else {"advantage": "rloo"}
    algo, read = algorithm(name, n_groups=2, group_size=4, **settings), list[Utterance]()
    assert isinstance(algo, GroupedPolicyGradient)
    algo.begin(policy, Learning(lambda *_: True, 0, CPU))
    played, score = batch(policy), policy.score
    monkeypatch.setattr(policy, "score", lambda said: (read.extend(said), score(said))[1])
    even = [Played([Turn(turn.said, 0.1) for turn in episode.turns], terminated=True) for episode in played.played]
    half = Batch.of([*even[:4], *played.played[4:]], CPU)
    with monkeypatch.context() as patched:
        patched.setattr(algo, "update", lambda: None)
        algo.improve(policy, half)
    assert sorted(map(id, read)) == sorted(id(said) for said, row in zip(half.said, half.episodes, strict=True) if row >= 4)
    found = [parameter.grad.clone() for parameter in policy.lm.parameters() if parameter.grad is not None]
    longest = max(len(said.logprobs) for said in half.said)
    totals = half.totals - half.totals.view(2, 4).mean(1).repeat_interleave(4)
    worth = totals / BATCH_SIZE if name == "grpo" else totals * 4 / 3 / 8
    same_gradient(found, policy, half, (worth[half.episodes] / longest).tolist())
    algo.update()
    before = [parameter.clone() for parameter in policy.lm.parameters()]
    read.clear()
    algo.improve(policy, Batch.of(even, CPU))
    assert not read and all(map(torch.equal, before, policy.lm.parameters())), "the optimiser's momentum alone moves nothing"


def test_a_step_of_ppo_is_the_plain_policy_gradient(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = speaker(taught, TwoTurns)
    settings = {"n_episodes": 8, "batch_size": BATCH_SIZE, "n_epochs": 1, "critic_warmup": 0.0, "gamma": 0.9, "gae_lambda": 0.8}
    found, played = first_gradient(policy, algorithm("ppo_text", **settings), monkeypatch)
    earned = [[turn.reward for turn in episode.turns] for episode in played.played]
    mean, deviation = np.mean([sum(row) for row in earned]), np.std([sum(row) for row in earned])
    worth = list[float]()
    for row in earned:  # a critic that knows nothing values everything at the mean
        after, ahead, backwards = 0.0, 0.0, list[float]()
        for reward in reversed(row):
            ahead = reward / deviation + 0.9 * after - mean / deviation + 0.9 * 0.8 * ahead
            after = mean / deviation
            backwards.append(ahead)
        worth += reversed(backwards)
    centred = (np.array(worth) - np.mean(worth)) / max(1, np.std(worth, ddof=1))
    same_gradient(found, policy, played, [each / len(played.logprobs) for each in centred])


def test_minibatches_and_passes_change_no_gradient(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    for pass_tokens in (8_192, 16):
        policy = speaker(taught, TwoTurns)
        policy.lm.pass_tokens = pass_tokens  # type: ignore[attr-defined]
        gradients.append(first_gradient(policy, algorithm("grpo", loss="gspo", n_groups=2, group_size=4), monkeypatch)[0])
    for whole, parted in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parted, rtol=1e-3, atol=1e-6)


def episodes(*rewards: list[float]) -> Batch:
    nothing = Utterance("", np.ones(3, bool), 0, "", Tokens(np.zeros(1, np.int64), np.zeros(1)), np.zeros(2), "stop")
    return Batch.of([Played([Turn(nothing, reward) for reward in row], terminated=True) for row in rewards], CPU)


def test_updates_are_of_one_size_and_episodes_stay_together() -> None:
    lengths = [3, 1, 4, 1, 5, 9, 2, 6]  # 31 turns
    played, beginnings = episodes(*[[0.0] * length for length in lengths]), {0, *accumulate(lengths)}
    first, second = list(played.minibatches(10, 1)), list(played.minibatches(10, 1))
    for parts in (first, second):
        assert [len(part) for part in parts] == [8, 8, 8, 7]
        rows = torch.cat(parts).tolist()
        assert sorted(rows) == list(range(31))
        assert all(after == before + 1 or after in beginnings for before, after in pairwise(rows))
        assert len(played.episodes[rows].unique_consecutive()) == len(lengths)
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert [len(part) for part in played.minibatches(31, 2)] == [31, 31] and [len(part) for part in played.minibatches(64, 1)] == [31]


def test_the_critic_reads_what_the_policy_found_when_it_spoke_or_reads_anew(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, algo = speaker(taught, TwoTurns), algorithm("ppo_text")
    assert isinstance(algo, TextPPO)
    algo.begin(policy, Learning(lambda *_: True, 0, CPU))
    played = batch(policy)
    untold = Batch.of([Played([Turn(replace(turn.said, state=None), turn.reward) for turn in episode.turns]) for episode in played.played], CPU)
    anew = algo.states(policy, untold)
    monkeypatch.setattr(policy, "states", lambda texts: pytest.fail("it was read before"))
    torch.testing.assert_close(algo.states(policy, played), anew, rtol=0, atol=2e-5)
    assert float(anew.std(0).max()) > 1e-3, "turns look different"


def test_gae_runs_over_turns() -> None:
    algo = algorithm("ppo_text", gamma=0.9, gae_lambda=0.5)
    assert isinstance(algo, TextPPO)
    played = episodes([1.0, 2.0], [3.0], [0.0, 0.0, 1.0])
    values = torch.tensor([0.5, 1.0, 2.0, 0.1, 0.2, 0.3])
    second = 2 - 1.0
    last = 1 - 0.3
    middle = 0 + 0.9 * 0.3 - 0.2 + 0.45 * last
    expected = [1 + 0.9 * 1.0 - 0.5 + 0.45 * second, second, 3 - 2.0, 0 + 0.9 * 0.2 - 0.1 + 0.45 * middle, middle, last]
    torch.testing.assert_close(algo.advantages(played, played.rewards, values, algo.gae_lambda), torch.tensor(expected))


def test_returns_are_measured_by_mean_and_deviation_of_all_so_far() -> None:
    algo = algorithm("ppo_text")
    assert isinstance(algo, TextPPO)
    assert algo.moments(episodes([2.0], [2.0])) == (2.0, 1.0)
    assert algo.moments(episodes([1.0, 4.0], [0.0])) == pytest.approx((np.mean([2, 2, 5, 0]), np.std([2, 2, 5, 0])))


def without(**details: bool) -> dict[str, Any]:
    """Settings of PPO with some details left out."""
    kept = dict.fromkeys(("scale_rewards", "centre_values", "zero_critic", "whiten", "clip_values", "teach_trunk"), True)
    return {"details": kept | details}


def test_details_of_ppo_can_be_left_out(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, seen = speaker(taught, TwoTurns), list[Tensor]()
    assert policy.critic(policy.states(["go"])).item() == 0
    raw = algorithm("ppo_text", critic_warmup=0.0, total_steps=64, **without(zero_critic=False, whiten=False, scale_rewards=False, centre_values=False))
    with monkeypatch.context() as patched:
        patched.setattr(raw, "improve", lambda policy, batch, *rest: seen.extend((batch.totals, *rest)), raising=True)
        learn(policy, TwoTurns, raw)
    totals, advantages, returns, values = seen[:4]
    assert policy.critic(policy.states(["go"])).item() != 0 and float(values.std()) > 0
    assert abs(float(advantages.mean())) > 1e-3 and float(advantages.std()) != pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(returns, advantages + values)
    assert float(returns.max()) <= float(totals.max()) + float(values.abs().max()) + 1e-5  # in the world's own unit


@pytest.mark.parametrize(("scaled", "centred", "whitened"), [(True, False, False), (False, True, False), (False, True, True), (True, True, True)])
def test_each_detail_of_ppo_does_what_it_says(scaled: bool, centred: bool, whitened: bool, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, seen = speaker(taught, TwoTurns), list[Any]()
    details = without(scale_rewards=scaled, centre_values=centred, whiten=whitened)
    algo = algorithm("ppo_text", critic_warmup=0.0, total_steps=64, **details)
    assert isinstance(algo, TextPPO)
    monkeypatch.setattr(algo, "improve", lambda policy, batch, *rest: seen.extend((batch, *rest)), raising=True)
    learn(policy, TwoTurns, algo)
    played, advantages, returns, _ = seen[:4]
    deviation = float(played.totals.std(correction=0))
    unit = deviation if scaled else 1.0
    values = torch.full_like(played.rewards, float(played.totals.mean()) / unit if centred else 0.0)  # the critic knows nothing yet
    expected = algo.advantages(played, played.rewards / unit, values, algo.gae_lambda)
    torch.testing.assert_close(returns, expected, rtol=1e-4, atol=1e-5)
    if whitened:
        expected = (expected - expected.mean()) / max(deviation / unit, float(expected.std()))
    torch.testing.assert_close(advantages, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("teach", [True, False])
def test_the_critics_gradient_reaches_the_trunk_where_it_is_to(teach: bool, taught: Path) -> None:
    policy, algo = speaker(taught, TwoTurns), algorithm("ppo_text", n_epochs=1, batch_size=64, **without(teach_trunk=teach, zero_critic=False))
    assert isinstance(algo, TextPPO)
    algo.begin(policy, Learning(lambda *_: True, 0, CPU))
    torch.nn.init.ones_(policy.critic.layers[-1].weight)  # type: ignore[operator,index,union-attr,arg-type]
    played = batch(policy)
    nothing, before = torch.zeros(len(played.said)), [parameter.clone() for parameter in policy.lm.parameters()]
    algo.improve(policy, played, nothing, nothing + 5, policy.critic(policy.states([said.observation for said in played.said]))[:, 0].detach())
    assert teach != all(torch.equal(a, b) for a, b in zip(before, policy.lm.parameters(), strict=True))


def test_rloo_credits_episodes_and_reinforce_plus_plus_what_came_after() -> None:
    played, groups = episodes([1.0, 2.0], [0.0], [4.0], [1.0, 1.0, 0.0]), torch.tensor([0, 0, 1, 1])
    rloo, after = (algorithm("reinforce", advantage=name) for name in ("rloo", "reinforce_plus_plus"))
    assert rloo.advantages(played, played.rewards, groups).tolist() == [3, 3, -3, 2, -2, -2, -2]  # type: ignore[attr-defined]
    to_come = np.array([3, 2, 0, 4, 2, 1, 0.0])
    found = after.advantages(played, played.rewards, groups)  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, (to_come - to_come.mean()) / to_come.std(ddof=1), rtol=1e-5)


def test_the_best_of_each_group_is_kept_and_none_where_all_are_alike() -> None:
    played = episodes([1.0, 2.0], [0.0], [4.0], [5.0, 0.0], [1.0], [1.0])
    algo = algorithm("best_of_n", group_size=2)
    assert algo.best(played, played.rewards) == [played.played[0], played.played[3]]  # type: ignore[attr-defined]
    dear = played.rewards - torch.tensor([0.0, 3.5, 0.0, 0.0, 0.5, 0.6, 0.0, 0.1])  # what leaving the reference costs may turn it
    assert algo.best(played, dear) == [played.played[place] for place in (1, 2, 4)]  # type: ignore[attr-defined]


def test_what_the_best_said_is_learnt_as_if_demonstrated(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = speaker(taught, TwoTurns)
    algo = algorithm("best_of_n", n_groups=2, group_size=4, batch_size=BATCH_SIZE, n_epochs=1)
    found, played = first_gradient(policy, algo, monkeypatch)
    policy.lm.model.zero_grad()  # type: ignore[attr-defined]
    said = [turn.said for episode in algo.best(played, played.rewards) for turn in episode.turns]  # type: ignore[attr-defined]
    (-torch.cat([plain(policy, one) for one in said]).mean()).backward()
    assert max(float(gradient.abs().max()) for gradient in found) > 1e-4
    for gradient, parameter in zip(found, policy.lm.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("adapter", [Full(), Lora()], ids=["full", "lora"])
def test_the_reference_is_the_model_as_it_began(adapter: Full | Lora, micro: Path) -> None:
    policy = fresh(micro, adapter=adapter)
    played = batch(policy)
    reference = Reference(policy.lm.parameters())
    torch.testing.assert_close(reference.logprobs(policy, played.said), played.logprobs, rtol=0, atol=2e-5)  # a KL of zero
    with torch.no_grad():
        for parameter in policy.lm.parameters():
            parameter.add_(0.1)
    moved = scored(policy, list(played.said))[0]
    assert float((moved - played.logprobs).detach().abs().max()) > 0.01
    torch.testing.assert_close(reference.logprobs(policy, played.said), played.logprobs, rtol=0, atol=2e-5)
    torch.testing.assert_close(scored(policy, list(played.said))[0], moved)
    if isinstance(adapter, Lora):
        with policy.lm.model.disable_adapter():  # type: ignore[attr-defined]
            torch.testing.assert_close(scored(policy, list(played.said))[0], played.logprobs, rtol=0, atol=2e-5)


def test_the_price_of_leaving_the_reference_moves_towards_its_target(taught: Path) -> None:
    prices: list[float] = []
    algo = algorithm("reinforce", kl_coef=0.1, kl_target=0.5, total_steps=200)
    learn(speaker(taught), OneTurn, algo, lambda steps, metrics: prices.append(metrics.get("train/kl_coef", 0.1)) is None)
    assert algo._counters["kl_coef"] == pytest.approx(0.1 * 0.98 ** (1 + len(prices) - 1), rel=0.05)  # far below the target it falls by 2 % a batch


@pytest.mark.parametrize(("end", "last"), [(None, 3e-3), (3e-4, 3e-4), (0.0, 0.0)])
def test_the_rate_falls_in_a_line(end: float | None, last: float, taught: Path) -> None:
    algo, rates = algorithm("ppo_text", total_steps=320, learning_rate=3e-3, learning_rate_end=end, critic_learning_rate=6e-3), list[tuple[float, ...]]()

    def progress(steps: int, metrics: Mapping[str, float]) -> bool:
        assert algo._optimizer is not None
        rates.append((steps, *(group["lr"] for group in algo._optimizer.param_groups)))
        return True

    learn(speaker(taught, TwoTurns), TwoTurns, algo, progress)
    for before, (_, rate, critic) in pairwise(rates):  # of the updates in between
        assert rate == pytest.approx(3e-3 + (last - 3e-3) * before[0] / 320) and critic == pytest.approx(2 * rate)
    assert len(rates) >= 4


def test_the_critic_alone_learns_while_it_warms_up(taught: Path) -> None:
    policy = speaker(taught, TwoTurns)
    before = [parameter.clone() for parameter in policy.lm.parameters()]
    learn(policy, TwoTurns, algorithm("ppo_text", critic_warmup=1.0, total_steps=600))
    assert all(torch.equal(a, b) for a, b in zip(before, policy.lm.parameters(), strict=True))
    assert policy.critic(policy.states(["go"])).item() != 0


class Dear(TwoTurns):
    """The same, but its end costs ten, whatever one does."""

    def act(self, action: int) -> Transition:
        moved = super().act(action)
        return replace(moved, reward_terms={"pay": moved.reward_terms["pay"] - 10 * moved.terminated})


def test_what_every_episode_costs_teaches_nothing(taught: Path) -> None:
    """Advantages are the same where the end costs ten: who ends is not to blame for it, and nobody learns to idle."""
    seen: list[Tensor] = []
    for world in (TwoTurns, Dear):
        policy, algo = speaker(taught, world), algorithm("ppo_text", critic_warmup=0.0, total_steps=64)
        torch.manual_seed(0)
        algo.improve = lambda policy, batch, advantages, *rest: seen.append(advantages)  # type: ignore[attr-defined,misc]
        learn(policy, world, algo)
    alike, dear = seen[0], seen[1]
    torch.testing.assert_close(dear, alike, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "changed"), [("grpo", {}), ("ppo_text", {"critic_warmup": 0.0})], ids=["grpo", "ppo_text"])
def test_a_budget_that_one_batch_uses_up_is_learnt_from_and_told_of(name: str, changed: dict[str, Any], taught: Path) -> None:
    policy, told = speaker(taught, TwoTurns), list[tuple[int, Mapping[str, float]]]()
    before = [parameter.clone() for parameter in policy.lm.parameters()]

    def progress(steps: int, metrics: Mapping[str, float]) -> bool:
        told.append((steps, metrics))
        return True

    learn(policy, TwoTurns, algorithm(name, total_steps=1, learning_rate_end=0.0, **changed), progress)
    assert [steps > 0 for steps, _ in told] == [False, True] and "rollout/return" in told[1][1]
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.lm.parameters(), strict=True))


def test_while_it_plays_what_was_read_is_kept(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, read = speaker(taught, TwoTurns), list[int]()
    policy.lm.model.get_input_embeddings().register_forward_pre_hook(lambda module, given: read.append(given[0].numel()))  # type: ignore[attr-defined]
    found = []
    for kept in (True, False):
        with monkeypatch.context() as patched:
            if not kept:
                patched.setattr(policy.lm, "unchanged", nullcontext)
            read.clear()
            torch.manual_seed(0)
            found.append(([turn.said.text for episode in play(policy, [TwoTurns() for _ in range(8)], range(8)) for turn in episode.turns], sum(read)))
    assert found[0][0] == found[1][0] and found[0][1] < found[1][1]


def test_members_of_a_group_meet_the_same_and_gibberish_is_a_lost_turn(micro: Path) -> None:
    policy = fresh(micro)
    played = play(policy, [TwoTurns() for _ in range(4)], [7] * 4)
    assert len({episode.turns[0].said.observation for episode in played}) == 1
    assert all(turn.said.act == -1 for episode in played for turn in episode.turns)
    assert all(episode.truncated and not episode.terminated and len(episode.turns) == 3 for episode in played)


def test_an_act_that_is_forbidden_is_not_understood(taught: Path) -> None:
    policy, nothing = speaker(taught), np.zeros((4, len(ACTS)), bool)
    shown = Observations(["go"] * 4, nothing, np.zeros((4, 0), np.int64))
    assert policy.act(shown).tolist() == policy.act(shown, deterministic=True).tolist() == [-1] * 4


def test_a_policy_is_judged_by_what_it_draws_and_the_run_does_not_notice(taught: Path) -> None:
    policy, shown = speaker(taught), Observations(["go"] * 32, np.ones((32, len(ACTS)), bool), np.zeros((32, 0), np.int64))
    assert len(set(policy.act(shown, deterministic=True).tolist())) == 1  # at temperature 0
    policy.judged = policy.sampling
    before = torch.get_rng_state()
    with chance_apart(1):
        first = policy.act(shown, deterministic=True).tolist()
    with chance_apart(1):
        assert policy.act(shown, deterministic=True).tolist() == first
    assert len(set(first)) > 1 and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["grpo", "reinforce", "ppo_text", "best_of_n"])
def test_a_resumed_run_is_the_uninterrupted_one(name: str, taught: Path, tmp_path: Path) -> None:
    settings = {"kl_coef": 0.05, "kl_target": 0.1, "learning_rate_end": 1e-3, "total_steps": 200}
    whole, halves = speaker(taught, TwoTurns), speaker(taught, TwoTurns)
    torch.manual_seed(1)
    told: list[Mapping[str, float]] = []
    learn(whole, TwoTurns, algorithm(name, **settings), lambda steps, metrics: told.append(metrics) is None)
    first = algorithm(name, **settings)

    def stop(steps: int, metrics: Mapping[str, float]) -> bool:
        if steps >= 100:
            first.save(tmp_path)
            halves.save(tmp_path, working=True)
        return steps < 100

    torch.manual_seed(1)
    learn(halves, TwoTurns, first, stop)
    again = speaker(taught, TwoTurns)
    again.load(tmp_path, CPU)
    torch.manual_seed(2)
    learn(again, TwoTurns, algorithm(name, **settings), resume=tmp_path)
    assert len(told) > 2
    assert all(torch.equal(a, b) for a, b in zip(whole.lm.parameters(), again.lm.parameters(), strict=True))
    whole.save(tmp_path)
    critic = load_file(tmp_path / "critic.safetensors")
    assert all(torch.equal(value, critic[name]) for name, value in again.critic.state_dict().items())


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"rollout/flat": 1.0, "rollout/group": 8.0, "rollout/return": 0.0}, "all 8 episodes of every group earned the same (0 on average)"),
        ({"rollout/flat": 0.9}, "in 90% of the groups"),
        ({"rollout/not_understood": 0.6}, "60% of the replies are no act that is allowed; begin with warm_start=sft"),
        ({"rollout/cut_off": 0.3}, "raise policy.max_tokens"),
        ({"rollout/entropy": 0.01}, "entropy fell from 1 nats a draw to 0.01"),
        ({"train/kl": 50.0}, "raise algo.kl_coef"),
        ({"train/sampling_gap": 0.5}, "use lm.dtype=float32"),
        ({"train/approx_kl": 2.0}, "one batch moved the policy by 2 nats a draw; lower algo.learning_rate"),
    ],
)
def test_what_is_wrong_is_said_once_with_what_to_try(metrics: dict[str, float], told: str) -> None:
    diagnosis = Diagnosis()
    assert not diagnosis.look({"rollout/entropy": 1.0})
    (warning,) = diagnosis.look(metrics)
    assert told in warning
    assert not Diagnosis(diagnosis.state).look(metrics)


def test_what_it_is_told_first_stands_before_every_observation_and_lesson(taught: Path) -> None:
    policy = speaker(taught)
    policy.told = (Message("system", "left or right"),)
    (said,) = policy.say(Observations(["go"], np.ones((1, len(ACTS)), bool), np.zeros((1, 0), np.int64)))
    shown = [policy.lm.tokenizer.decode(tokens.ids[tokens.weights == 0]) for tokens in (said.tokens, policy.lesson("go", 0))]
    assert shown == ["left or right\ngo\n"] * 2


@pytest.mark.parametrize(("explained", "said"), [(-20.0, True), (0.0, True), (0.01, True), (0.05, False), (0.6, False)])
def test_a_critic_is_judged_by_ten_batches(explained: float, said: bool) -> None:
    diagnosis = Diagnosis()
    for _ in range(9):
        assert not diagnosis.look({"train/explained_variance": explained}), "a critic may need a while"
    warnings = Diagnosis(diagnosis.state).look({"train/explained_variance": explained})
    assert [told for told in warnings if "raise algo.critic_warmup, or algo.vf_coef where" in told] == warnings and bool(warnings) is said


class Even(OneTurn):
    """Pays the same for everything."""

    def act(self, action: int) -> Transition:
        return Transition({"pay": 1.0}, terminated=True)

    def idle(self) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return self.step(0)


def test_a_critic_and_no_groups_have_nothing_to_learn_either_where_all_earn_the_same(taught: Path) -> None:
    with pytest.raises(TrainingError, match="in each of the first 20 batches all 8 episodes of every group earned the same"):
        learn(speaker(taught, Even), Even, algorithm("ppo_text", n_episodes=8, total_steps=400))


def test_turns_are_divided_by_a_constant() -> None:
    grpo = algorithm("grpo")
    longest = [grpo.budget(SimpleNamespace(turns=torch.tensor(turns))) for turns in ([0, 0, 0, 1], [0, 1, 1, 1, 1, 1], [0])]
    assert longest == [3, 3, 3], "later batches' longest turns are chance"


def test_a_run_that_never_had_anything_to_learn_from_is_ended() -> None:
    flat: dict[str, Any] = {"rollout/flat": 1.0, "rollout/group": 8.0, "rollout/return": 0.0}
    solved = Diagnosis()
    solved.look({"rollout/flat": 0.5})
    for _ in range(50):
        solved.look(flat)
    hopeless = Diagnosis()
    for _ in range(19):
        hopeless.look(flat)
    with pytest.raises(TrainingError, match="in each of the first 20 batches all 8 episodes of every group earned the same"):
        hopeless.look(flat)
