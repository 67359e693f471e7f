"""Losses against computations by hand and, where TRL has them, against its trainers' own code on the same tensors."""

from __future__ import annotations

from collections import defaultdict
from math import exp, inf, log
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from framework import losses

LENGTHS = (3, 1, 5, 2)
SEQUENCES = torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS))


def tokens(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, older ones and an advantage a token, the same for all of a sequence, `[N]` each."""
    draw = torch.Generator().manual_seed(seed)
    old = -torch.rand(len(SEQUENCES), generator=draw) * 3
    return (old + torch.randn(len(old), generator=draw) * 0.4).requires_grad_(), old, torch.randn(4, generator=draw)[SEQUENCES]


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


@pytest.mark.parametrize(
    ("ratio", "advantage", "term", "slope"),
    [(1.0, 2.0, -2.0, -2.0), (1.5, 2.0, -2.4, 0.0), (1.5, -2.0, 3.0, 3.0), (0.5, 2.0, -1.0, -1.0), (0.5, -2.0, 1.6, 0.0)],
)
def test_ppo_by_hand(ratio: float, advantage: float, term: float, slope: float) -> None:
    logprobs = torch.tensor([log(ratio) - 1]).requires_grad_()
    found = losses.ppo(logprobs, torch.tensor([-1.0]), torch.tensor([advantage]))
    found.sum().backward()
    torch.testing.assert_close(found, torch.tensor([term]))
    torch.testing.assert_close(logprobs.grad, torch.tensor([slope]))


def test_dapo_clips_higher_above() -> None:
    found = losses.ppo(torch.tensor([log(1.5)]), torch.zeros(1), torch.ones(1), clip_high=0.28)
    torch.testing.assert_close(found, torch.tensor([-1.28]))


def test_on_policy_ppo_and_reinforce_have_one_gradient() -> None:
    logprobs, _, advantages = tokens(0)
    expected = -advantages
    for term in (losses.ppo(logprobs, logprobs, advantages), losses.reinforce(logprobs, advantages), losses.cispo(logprobs, logprobs, advantages)):
        torch.testing.assert_close(torch.autograd.grad(term.sum(), logprobs)[0], expected)


def test_gspo_takes_the_geometric_mean_of_ratios() -> None:
    logprobs = torch.tensor([log(2.0), log(0.5), log(1.1)])
    found = losses.gspo(logprobs, torch.zeros(3), torch.tensor([1.0, 1.0, -2.0]), torch.tensor([0, 0, 1]), 0.2, 0.2)
    torch.testing.assert_close(found, torch.tensor([-1.0, -1.0, 2.2]))


def test_cispo_bounds_the_weight_and_keeps_the_gradient() -> None:
    logprobs = torch.tensor([log(4.0), log(0.5)]).requires_grad_()
    losses.cispo(logprobs, torch.zeros(2), torch.tensor([3.0, -1.0]), most=2.0).sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([-6.0, 0.5]))


def test_weightings_by_hand() -> None:
    torch.testing.assert_close(losses.mean_of_sequences(torch.tensor([0, 0, 1])), torch.tensor([0.25, 0.25, 0.5]))
    torch.testing.assert_close(losses.mean_of_tokens(torch.tensor([0, 0, 1])), torch.full((3,), 1 / 3))
    torch.testing.assert_close(losses.mean_of_budgets(torch.tensor([0, 0, 1]), 10), torch.full((3,), 1 / 20))
    torch.testing.assert_close(losses.mean_of_budgets(torch.tensor([0, 0, 1]), 10, count=4), torch.full((3,), 1 / 40))


def test_kl_estimators_by_hand_and_in_the_mean() -> None:
    policy, reference = torch.tensor([0.7, 0.3]), torch.tensor([0.4, 0.6])
    exact = (policy * (policy / reference).log()).sum()
    for estimator in (losses.k1, losses.k3):
        torch.testing.assert_close((policy * estimator(policy.log(), reference.log())).sum(), exact)
    torch.testing.assert_close(losses.k3(torch.tensor([-1.0]), torch.tensor([-3.0])), torch.tensor([exp(-2) + 1]))


def test_clipped_value_by_hand() -> None:
    found = losses.clipped_value(torch.tensor([1.5, 1.1]), torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0]), clip=0.2)
    torch.testing.assert_close(found, torch.tensor([0.5 * 0.8**2, 0.5 * 1.1**2]))
    free = losses.clipped_value(torch.tensor([1.5, 1.1]), torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0]), clip=inf)
    torch.testing.assert_close(free, torch.tensor([0.5 * 0.5**2, 0.5 * 1.1**2]))


def test_preferences_by_hand() -> None:
    chosen, rejected, ahead = torch.tensor([1.0]), torch.tensor([-2.0]), 0.5 * 3
    for found, expected in (
        (losses.dpo(chosen, rejected, 0.5), -log(sigmoid(ahead))),
        (losses.ipo(chosen, rejected, 0.5), (3 - 1) ** 2),
        (losses.hinge(chosen, rejected, 0.5), 0.0),
        (losses.hinge(rejected, chosen, 0.5), 2.5),
        (losses.robust_dpo(chosen, rejected, 0.5, 0.2), (-0.8 * log(sigmoid(ahead)) + 0.2 * log(sigmoid(-ahead))) / 0.6),
        (losses.bradley_terry(chosen, rejected), -log(sigmoid(3))),
        (losses.bradley_terry(chosen, rejected, torch.tensor([1.0]), 0.1), -log(sigmoid(2)) + 0.1),
    ):
        torch.testing.assert_close(found, torch.tensor([float(expected)]))


def test_robust_dpo_is_right_in_the_mean_over_flips() -> None:
    chosen, rejected = torch.tensor([0.4]), torch.tensor([-1.0])
    noisy = 0.9 * losses.robust_dpo(chosen, rejected) + 0.1 * losses.robust_dpo(rejected, chosen)
    torch.testing.assert_close(noisy, losses.dpo(chosen, rejected))


def test_kto_by_hand() -> None:
    found = losses.kto(torch.tensor([1.0, 1.0]), torch.tensor([True, False]), torch.tensor(0.5), 2.0, 1.0, 3.0)
    torch.testing.assert_close(found, torch.tensor([1 - sigmoid(1.0), 3 * (1 - sigmoid(-1.0))]))


def test_orpo_by_hand_and_at_the_ends() -> None:
    odds = log(0.6 / 0.4) - log(0.2 / 0.8)
    found = losses.orpo(torch.tensor([log(0.6)]), torch.tensor([log(0.2)]), 0.25)
    torch.testing.assert_close(found, torch.tensor([-log(0.6) - 0.25 * log(sigmoid(odds))]))
    extreme = torch.tensor([-1e-6, -80.0]).requires_grad_()
    losses.orpo(extreme, extreme.flip(0).detach()).sum().backward()
    assert extreme.grad is not None and extreme.grad.isfinite().all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logprobs \(3,\), old_logprobs \(2,\)"):
        losses.ppo(torch.zeros(3), torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="vectors of one length"):
        losses.dpo(torch.zeros(2, 2), torch.zeros(2, 2))


def padded(flat: Tensor) -> Tensor:
    return pad_sequence(list(flat.split(LENGTHS)), batch_first=True)


def bare(trainer: type, **attributes: Any) -> Any:
    """A trainer of TRL with just what its loss reads; numbers for logging go nowhere."""
    everyone = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x, num_processes=1, unwrap_model=lambda x: x
    )
    ours = trainer.__new__(trainer)
    vars(ours).update(accelerator=everyone, _metrics=defaultdict(lambda: defaultdict(list)), model=SimpleNamespace(training=True), **attributes)
    return ours


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo", "gspo", "cispo"])
def test_policy_gradients_are_those_of_trl(kind: str) -> None:
    trl = pytest.importorskip("trl")
    logprobs, old, advantages = tokens(1)
    reference, mask = old + 0.1, padded(torch.ones(len(SEQUENCES)))
    high = 1.3 if kind == "cispo" else 0.28
    trainer = bare(
        trl.GRPOTrainer,
        loss_type="grpo" if kind == "gspo" else kind, importance_sampling_level="sequence" if kind == "gspo" else "token",
        epsilon_low=0.2, epsilon_high=high, beta=0.05, max_completion_length=7, top_entropy_quantile=1.0, aux_loss_enabled=False,
        off_policy_mask_threshold=None, use_vllm=False, vllm_importance_sampling_correction=False, current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False, use_adaptive_entropy=False,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        _get_per_token_logps_and_entropies=lambda *_, **__: (padded(logprobs), torch.zeros_like(mask), None),
    )  # fmt: skip
    inputs = {
        **dict.fromkeys(("prompt_ids", "prompt_mask", "completion_ids", "completion_mask"), mask), "advantages": padded(advantages)[:, 0],
        "old_per_token_logps": padded(old), "ref_per_token_logps": padded(reference), "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    expected = trainer._compute_loss(SimpleNamespace(training=True), inputs)
    terms = {"gspo": lambda: losses.gspo(logprobs, old, advantages, SEQUENCES, 0.2, high), "cispo": lambda: losses.cispo(logprobs, old, advantages, high)}
    term = terms.get(kind, lambda: losses.ppo(logprobs, old, advantages, 0.2, high))()
    weights = {"dr_grpo": losses.mean_of_budgets(SEQUENCES, 7), **dict.fromkeys(("dapo", "cispo"), losses.mean_of_tokens(SEQUENCES))}
    found = weights.get(kind, losses.mean_of_sequences(SEQUENCES)) @ (term + 0.05 * losses.k3(logprobs, reference))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, logprobs)[0], torch.autograd.grad(expected, logprobs)[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sigmoid", "ipo", "robust", "hinge"])
def test_preference_losses_are_those_of_trl(kind: str) -> None:
    trl = pytest.importorskip("trl")
    draw = torch.Generator().manual_seed(2)
    logprobs, reference = (-torch.rand(4, 6, generator=draw).requires_grad_() for _ in range(2))
    mask = torch.ones(4, 7)
    mask[:, 0] = 0
    trainer = bare(
        trl.DPOTrainer, loss_types=[kind], loss_weights=[1.0], beta=0.3, label_smoothing=0.1, f_divergence_type="reverse_kl", ld_alpha=None,
        aux_loss_enabled=False, precompute_ref_logps=True, use_weighting=False, args=SimpleNamespace(), _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    sums = reference.sum(1).detach()
    inputs = {"input_ids": mask.long(), "attention_mask": mask.long(), "completion_mask": mask, "ref_chosen_logps": sums[:2], "ref_rejected_logps": sums[2:]}
    nothing = torch.zeros(4, 6)
    model = lambda **_: SimpleNamespace(log_probs=logprobs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())  # noqa: E731
    expected = trainer._compute_loss(model, inputs, return_outputs=False)
    chosen, rejected = (logprobs.sum(1) - sums).chunk(2)
    ours = {"sigmoid": losses.dpo, "hinge": losses.hinge, "robust": losses.robust_dpo, "ipo": losses.ipo}[kind]
    found = ours(chosen / 6, rejected / 6, 0.3) if kind == "ipo" else ours(chosen, rejected, 0.3)
    torch.testing.assert_close(found.mean(), expected)


@pytest.mark.slow
def test_orpo_is_that_of_trl() -> None:
    trainer = pytest.importorskip("trl.experimental.orpo").ORPOTrainer
    chosen, rejected = -torch.rand(2, 5, generator=torch.Generator().manual_seed(3)) * 3
    ratio, *_ = bare(trainer, beta=0.2).odds_ratio_loss(chosen, rejected)
    torch.testing.assert_close(losses.orpo(chosen, rejected, 0.2), -chosen - ratio)


@pytest.mark.slow
@pytest.mark.parametrize("margin", [False, True])
def test_the_reward_loss_is_that_of_trl(margin: bool) -> None:
    trl = pytest.importorskip("trl")
    scores = torch.randn(6, 1, generator=torch.Generator().manual_seed(4))
    trainer = bare(trl.RewardTrainer, args=SimpleNamespace(center_rewards_coefficient=0.01), _total_train_tokens=0, _tp_size=1)
    ahead = torch.tensor([0.1, 0.5, 1.0])
    inputs = {"attention_mask": torch.ones(6, 2), **({"margin": ahead} if margin else {})}
    expected = trainer.compute_loss(lambda **_: SimpleNamespace(logits=scores), inputs)
    found = losses.bradley_terry(scores[:3, 0], scores[3:, 0], ahead if margin else None, 0.01)
    torch.testing.assert_close(found.mean(), expected)
