"""A critic that reads with a language model of its own: which loss moves what, by hand; how it begins, what it costs, and that a run goes on with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from speakers import CPU, OneTurn, TwoTurns, algorithm, earned, fresh, learn, picker, speaker
from torch import Tensor

from framework.algorithms import ppo_text
from framework.algorithms.own_trunk import OwnTrunk
from framework.algorithms.ppo_text import TextPPO
from framework.algorithms.turns import Batch, play
from framework.errors import CheckpointError, ConfigError
from framework.interfaces import Learning, SpeakingPolicy
from framework.lm.adapters import Full, Lora
from framework.lm.causal import CausalLM

ADAPTERS = pytest.mark.parametrize("adapter", [Full(), Lora(rank=2)], ids=["full", "lora"])
KINDS = pytest.mark.parametrize("kind", ["generative", "likelihood"])


def ppo(**changed: Any) -> TextPPO:
    algo = algorithm("ppo_text", critic_trunk="own", **changed)
    assert isinstance(algo, TextPPO)
    return algo


def details(**changed: bool) -> dict[str, bool]:
    return dict.fromkeys(("scale_rewards", "centre_values", "zero_critic", "whiten", "clip_values", "teach_trunk"), True) | changed


@pytest.fixture
def anew(micro: Path, taught: Path) -> Callable[[str], SpeakingPolicy]:
    """Policies of a kind, all alike; `lora` is one that writes and learns by an adapter."""
    made: dict[str, Callable[[], SpeakingPolicy]] = {
        "generative": lambda: speaker(taught, TwoTurns),
        "likelihood": lambda: picker(micro, TwoTurns),
        "lora": lambda: fresh(taught, TwoTurns, Lora()),
    }
    return lambda kind: made[kind]()


def trunk(algo: TextPPO) -> OwnTrunk:
    assert algo._trunk is not None
    return algo._trunk


def learning(algo: TextPPO) -> list[Tensor]:
    """What learns of the trunk, as it is now."""
    return [parameter.detach().clone() for parameter in trunk(algo).lm.parameters()]


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def gradients(policy: SpeakingPolicy, algo: TextPPO, monkeypatch: pytest.MonkeyPatch, batch: Batch, *given: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Of one minibatch: the policy's and the trunk's; 0 where there is none."""
    monkeypatch.setattr(algo, "update", lambda: None)
    algo.forget()
    algo.improve(policy, batch, *given)
    found = [[torch.zeros_like(each) if each.grad is None else each.grad.clone() for each in lm.parameters()] for lm in (policy.lm, trunk(algo).lm)]
    return found[0], found[1]


def begun(policy: SpeakingPolicy, algo: TextPPO) -> tuple[Batch, Tensor]:
    """A batch to learn from, and what a critic that tells situations apart makes of it."""
    algo.begin(policy, Learning(lambda *_: True, 0, CPU))
    torch.manual_seed(3)
    torch.nn.init.normal_(policy.critic.layers[-1].weight)  # type: ignore[operator,index,union-attr,arg-type]
    batch = Batch.of(play(policy, [TwoTurns() for _ in range(8)], list(range(8))), CPU)
    return batch, policy.critic(algo.states(policy, batch))[:, 0].detach()


@KINDS
def test_each_loss_moves_its_own_model(kind: str, anew: Callable[[str], SpeakingPolicy], monkeypatch: pytest.MonkeyPatch) -> None:
    policy, algo = anew(kind), ppo(n_epochs=1, target_kl=None)
    batch, values = begun(policy, algo)
    nothing = torch.zeros(len(batch.said))
    of_policy, of_trunk = gradients(policy, algo, monkeypatch, batch, nothing, values + 5, values)
    assert not any(bool(gradient.any()) for gradient in of_policy) and max(float(gradient.abs().max()) for gradient in of_trunk) > 1e-3
    algo.vf_coef = 0.0
    of_policy, of_trunk = gradients(policy, algo, monkeypatch, batch, torch.randn(len(batch.said)), values + 5, values)
    assert not any(bool(gradient.any()) for gradient in of_trunk) and max(float(gradient.abs().max()) for gradient in of_policy) > 1e-3


@pytest.mark.parametrize("kind", ["generative", "likelihood", "lora"])
@pytest.mark.parametrize("pass_tokens", [8_192, 12], ids=["whole", "parted"])
def test_the_critics_loss_is_that_of_plain_passes(kind: str, pass_tokens: int, anew: Callable[[str], SpeakingPolicy], monkeypatch: pytest.MonkeyPatch) -> None:
    policy = anew(kind)
    algo = ppo(n_epochs=1, vf_coef=0.5, clip_range=0.2, target_kl=None)
    batch, told = begun(policy, algo)
    model: CausalLM = trunk(algo).lm  # type: ignore[assignment]
    model.pass_tokens = pass_tokens
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))  # it has learnt something since, and so values have moved
    torch.manual_seed(4)
    old, returns = told + torch.randn(len(told)), torch.randn(len(told))
    algo._sums.clear()
    _, found = gradients(policy, algo, monkeypatch, batch, torch.zeros(len(told)), returns, old)
    found_critic = [parameter.grad.clone() for parameter in policy.critic.parameters()]  # type: ignore[union-attr]
    counted = algo._sums["train/loss"]
    algo.forget()
    prompts = policy.prompts([said.observation for said in batch.said])
    network = model.model.get_base_model() if hasattr(model.model, "get_base_model") else model.model
    states = torch.stack([network.model(input_ids=torch.as_tensor(prompt)[None]).last_hidden_state[0, -1] for prompt in prompts])
    values = policy.critic(states)[:, 0]
    near = old + (values - old).clamp(-0.2, 0.2)
    errors = torch.maximum((values - returns) ** 2, (near - returns) ** 2) / 2
    assert bool(((near - returns) ** 2 > (values - returns) ** 2).any()) and bool((values != near).any()), "nothing was clipped"
    loss = 0.5 * errors.mean()
    loss.backward()
    assert counted == pytest.approx(loss.item(), rel=1e-4)
    for ours, parameter in zip([*found, *found_critic], [*model.parameters(), *policy.critic.parameters()], strict=True):
        torch.testing.assert_close(ours, parameter.grad if parameter.grad is not None else torch.zeros_like(parameter), rtol=1e-3, atol=1e-5)
    assert max(float(gradient.abs().max()) for gradient in found) > 1e-3


@ADAPTERS
def test_a_twin_learns_by_itself_and_what_does_not_learn_is_held_once(adapter: Full | Lora, micro: Path) -> None:
    lm: CausalLM = fresh(micro, adapter=adapter).lm  # type: ignore[assignment]
    twin = lm.twin()
    assert same(lm.parameters(), twin.parameters()) and all(parameter.requires_grad for parameter in twin.parameters())
    places = {parameter.data_ptr() for parameter in lm.model.parameters()}
    apart = [parameter for parameter in twin.model.parameters() if parameter.data_ptr() not in places]
    assert len(apart) == len(twin.parameters()) > 0
    prompts = [[1, 2, 3], [1, 2, 3, 4], [5], [1, 2, 3]]
    before = lm.states(prompts)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    assert torch.equal(lm.states(prompts), before) and not torch.allclose(twin.states(prompts), before, atol=1e-3)  # type: ignore[arg-type]


def test_each_distinct_prompt_is_read_once(taught: Path) -> None:
    policy = speaker(taught, TwoTurns)
    own, read = OwnTrunk(policy.lm), list[int]()
    texts = ["go", "go\na", "go", "go\nb", "go"]
    prompts, wanted = policy.prompts(texts), policy.states(texts)
    own.lm.model.get_input_embeddings().register_forward_pre_hook(lambda module, given: read.append(given[0].numel()))  # type: ignore[attr-defined]
    for pass_tokens in (8_192, 1):
        own.lm.pass_tokens = pass_tokens  # type: ignore[attr-defined]
        read.clear()
        parts = list(own.read(prompts))
        assert sum(read) <= sum(len(prompt) for prompt in (prompts[0], prompts[1], prompts[3]))
        assert sorted(torch.cat([rows for _, rows in parts]).tolist()) == [0, 1, 2, 3, 4] and len(parts) == (1 if pass_tokens > 1 else 3)
        for states, rows in parts:
            torch.testing.assert_close(states, wanted[rows], rtol=0, atol=2e-5)


@pytest.mark.slow
@ADAPTERS
def test_it_begins_as_the_policys_model_is_and_goes_its_own_way(adapter: Full | Lora, micro: Path, taught: Path) -> None:
    policy = fresh(micro, TwoTurns, adapter) if isinstance(adapter, Lora) else speaker(taught, TwoTurns)
    with torch.no_grad():
        for parameter in policy.lm.parameters():
            parameter.add_(0.001)  # as lessons leave it, which is not as it was loaded
    begins, algo, seen = [parameter.detach().clone() for parameter in policy.lm.parameters()], ppo(total_steps=400), list[list[Tensor]]()
    learn(policy, TwoTurns, algo, lambda *_: seen.append(learning(algo)) is None)
    assert same(seen[0], begins) and same(seen[1], begins), "while the critic warms up it alone learns"
    assert not same(seen[-1], begins) and not same(seen[-1], policy.lm.parameters()) and not same(policy.lm.parameters(), begins)
    assert algo._optimizer is not None
    assert [group["first_lr"] for group in algo._optimizer.param_groups] == [algo.learning_rate, algo.critic_learning_rate, algo.learning_rate]


def test_values_are_told_from_what_it_reads(taught: Path) -> None:
    policy, algo, seen = speaker(taught, TwoTurns), ppo(total_steps=32, critic_warmup=0.0, details=details(zero_critic=False)), list[tuple[Batch, Tensor]]()
    algo.improve = lambda policy, batch, advantages, returns, values: seen.append((batch, values))  # type: ignore[method-assign]

    @torch.no_grad()
    def learns(steps: int, told: Mapping[str, float]) -> bool:
        for parameter in trunk(algo).lm.parameters() if steps == 0 else ():
            parameter.add_(0.1 * torch.randn_like(parameter))
        return True

    learn(policy, TwoTurns, algo, learns)
    ((batch, values),) = seen
    shown = [said.observation for said in batch.said]
    torch.testing.assert_close(values, policy.critic(trunk(algo).lm.states(policy.prompts(shown)))[:, 0].detach())
    assert not torch.allclose(values, policy.critic(policy.states(shown))[:, 0], atol=1e-3)


def test_a_trunk_that_is_not_taught_stays_as_it_is(taught: Path) -> None:
    policy, algo = speaker(taught, TwoTurns), ppo(total_steps=300, critic_warmup=0.0, details=details(teach_trunk=False))
    begins = [parameter.detach().clone() for parameter in policy.lm.parameters()]
    learn(policy, TwoTurns, algo)
    assert same(learning(algo), begins) and not same(policy.lm.parameters(), begins)
    assert policy.critic(algo.states(policy, begun(policy, algo)[0])).std() > 0


def test_who_shares_or_has_no_critic_makes_no_second_model(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CausalLM, "twin", lambda self: pytest.fail("a second model"))
    for name in ("ppo_text", "grpo"):
        learn(speaker(taught), OneTurn, algorithm(name, total_steps=32))
    with pytest.raises(ConfigError, match=r"algo.*critic_trunk"):
        algorithm("grpo", critic_trunk="own")
    with pytest.raises(ConfigError, match=r"algo\.critic_trunk"):
        algorithm("ppo_text", critic_trunk="another")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["generative", "likelihood", "lora"])
def test_a_resumed_run_is_the_uninterrupted_one(kind: str, anew: Callable[[str], SpeakingPolicy], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"kl_coef": 0.05, "kl_target": 0.1, "learning_rate_end": 1e-3, "total_steps": 300, "n_epochs": 2}
    whole, halves, again = anew(kind), anew(kind), anew(kind)
    algorithms = [ppo(**settings) for _ in range(3)]
    told: list[list[Mapping[str, float]]] = [[], [], []]

    def stop(steps: int, metrics: Mapping[str, float]) -> bool:
        if steps >= 150:
            algorithms[1].save(tmp_path)
            halves.save(tmp_path, working=True)
        told[1].append(metrics)
        return steps < 150

    torch.manual_seed(1)
    learn(whole, TwoTurns, algorithms[0], lambda steps, metrics: told[0].append(metrics) is None)
    torch.manual_seed(1)
    learn(halves, TwoTurns, algorithms[1], stop)
    assert not same(learning(algorithms[1]), halves.lm.parameters()) and all(path.is_file() for path in tmp_path.iterdir())
    again.load(tmp_path, CPU)
    torch.manual_seed(2)
    learn(again, TwoTurns, algorithms[2], lambda steps, metrics: told[2].append(metrics) is None, resume=tmp_path)
    assert same(whole.lm.parameters(), again.lm.parameters()) and same(learning(algorithms[0]), learning(algorithms[2]))
    assert same(whole.critic.state_dict().values(), again.critic.state_dict().values())
    assert len(told[2]) > 1 and told[0][-len(told[2]) + 1 :] == told[2][1:]


@ADAPTERS
def test_a_checkpoint_without_it_or_with_anothers_is_refused(adapter: Full | Lora, micro: Path, tmp_path: Path) -> None:
    policy, shared, algo = fresh(micro, adapter=adapter), algorithm("ppo_text"), ppo()
    run = Learning(lambda *_: True, 0, CPU)
    shared.begin(policy, run)
    shared.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"critic_trunk\.safetensors.*algo\.critic_trunk=own.*not in this checkpoint"):
        ppo().begin(policy, Learning(lambda *_: True, 0, CPU, tmp_path))
    algo.begin(policy, run)
    algo.save(tmp_path)
    ppo().begin(policy, Learning(lambda *_: True, 0, CPU, tmp_path))
    other = OwnTrunk(fresh(micro, adapter=Full() if isinstance(adapter, Lora) else Lora()).lm)
    with pytest.raises(CheckpointError, match=r"critic_trunk\.safetensors: of another language model"):
        other.load(tmp_path)


@pytest.mark.slow
@KINDS
def test_a_first_act_is_paid_for_what_it_makes_possible(kind: str, anew: Callable[[str], SpeakingPolicy]) -> None:
    policy = anew(kind)
    assert earned(policy, TwoTurns, 128) < 0.6
    learn(policy, TwoTurns, ppo(total_steps=2_000, vf_coef=0.5, learning_rate_end=0.0))
    assert earned(policy, TwoTurns) >= 0.9


@pytest.mark.slow
def test_what_situations_are_worth_is_learnt_beside_a_policy_that_has_nothing_to_learn(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two turns by chance the second earns a third after `right` (`b`), nothing after `left` (`a`)."""
    monkeypatch.setattr(ppo_text, "whiten", lambda advantages, least: torch.zeros_like(advantages))
    policy, algo = speaker(taught, TwoTurns), ppo(total_steps=1_200, critic_warmup=0.0, vf_coef=0.5)
    begins = [parameter.detach().clone() for parameter in policy.lm.parameters()]
    learn(policy, TwoTurns, algo)
    left, right = policy.critic(trunk(algo).lm.states(policy.prompts(["go\na", "go\nb"])))[:, 0].tolist()
    assert right - left > 0.4  # of the returns' standard deviation
    assert same(policy.lm.parameters(), begins) and not same(learning(algo), begins)
