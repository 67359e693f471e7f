"""The exact truth against brute force and finite differences; estimators against it, and against what the algorithms really compute."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from experiments.exact_gradient import rows
from framework.algorithms.policy_gradient import PolicyGradient
from framework.algorithms.turns import Batch
from framework.config import CONF, build
from framework.gradients.estimators import Batches, Episodes, Estimator, menu, per_episode, sample, turn_index, turn_index_corrected
from framework.gradients.exact import Accuracy, Tables, accuracy, coordinates, scores, solve
from framework.gradients.quarry import ACTS, Quarry, QuarryModel
from framework.interfaces import Learning
from framework.lm.adapters import Lora
from framework.lm.causal import CausalLM
from framework.policies.likelihood import LikelihoodPolicy

LAYERS = 4
MODEL, TABLES = QuarryModel(LAYERS), Tables.of(QuarryModel(LAYERS))
N_GROUPS, GROUP_SIZE = 4, 4
SIZE = N_GROUPS * GROUP_SIZE
BATCH_SIZE = 1_000  # turns an update, more than are ever played
CPU = torch.device("cpu")


def logits() -> Tensor:
    return torch.randn(TABLES.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def table(numbers: Tensor) -> Tensor:
    return torch.where(TABLES.mask, numbers, -torch.inf).log_softmax(-1)


def episodes(logprobs: Tensor) -> Iterator[tuple[float, float, list[tuple[int, int]]]]:
    """Every episode there can be: probability, return, and the states and acts of its turns."""

    def onwards(row: int) -> Iterator[tuple[float, float, list[tuple[int, int]]]]:
        for act in TABLES.mask[row].nonzero()[:, 0].tolist():
            for outcome in MODEL.outcomes(TABLES.states[row], act):
                chance = float(logprobs[row, act].exp()) * outcome.probability
                rest = [(1.0, 0.0, [])] if outcome.state is None else onwards(TABLES.states.index(outcome.state))
                for probability, earned, turns in rest:
                    yield chance * probability, outcome.reward + earned, [(row, act), *turns]

    for probability, state in MODEL.openings():
        for chance, earned, turns in onwards(TABLES.states.index(state)):
            yield probability * chance, earned, turns


def test_everything_is_that_of_all_episodes_there_can_be() -> None:
    logprobs = table(logits())
    truth, listed = solve(TABLES, logprobs), list(episodes(logprobs))
    assert sum(probability for probability, _, _ in listed) == pytest.approx(1)
    assert float(truth.value) == pytest.approx(sum(probability * earned for probability, earned, _ in listed))
    kl = sum(p * sum(float((logprobs - TABLES.random())[turn]) for turn in turns) for p, _, turns in listed)
    assert float(truth.kl(TABLES.random())) == pytest.approx(kl) and kl > 0.1
    visits = torch.zeros(len(TABLES.states), dtype=torch.float64)
    gradient = torch.zeros(TABLES.mask.shape, dtype=torch.float64)  # of REINFORCE, whose expectation is a sum over episodes
    for probability, earned, turns in listed:
        for row, act in turns:
            visits[row] += probability
            gradient[row, act] += probability * earned
    torch.testing.assert_close(truth.visits, visits)
    theta = logits().requires_grad_()
    _, found = scores(table(theta), TABLES.mask, [theta])
    axes = found.flatten(0, 1).double()
    torch.testing.assert_close(truth.coefficients.flatten() @ axes, gradient.flatten() @ axes, rtol=1e-6, atol=1e-7)


def test_values_are_those_of_the_oracle_where_the_policy_is_the_best() -> None:
    oracle = Quarry(LAYERS).oracle("train")
    best = torch.from_numpy(oracle.policies["optimum"]).log()
    assert float(solve(TABLES, best).value) == pytest.approx(oracle.references["optimum"].value)
    assert float(solve(TABLES, TABLES.random()).value) == pytest.approx(oracle.references["random"].value)


def test_the_tables_gradient_is_that_of_finite_differences() -> None:
    theta = logits().requires_grad_()
    logprobs, found = scores(table(theta), TABLES.mask, [theta])
    by_theorem = (solve(TABLES, logprobs).coefficients.flatten() @ found.flatten(0, 1).double()).view_as(theta)
    (by_autograd,) = torch.autograd.grad(solve(TABLES, table(theta)).value, theta)
    torch.testing.assert_close(by_theorem, by_autograd, rtol=1e-6, atol=1e-7)
    step = 1e-5
    for place in TABLES.mask.nonzero().tolist():
        nudge = torch.zeros_like(theta)
        nudge[tuple(place)] = step
        up, down = (float(solve(TABLES, table(theta.detach() + sign * nudge)).value) for sign in (1, -1))
        assert float(by_theorem[tuple(place)]) == pytest.approx((up - down) / (2 * step), abs=1e-8)


def test_coordinates_have_the_inner_products_of_the_scores() -> None:
    found = torch.randn(3, 2, 50, generator=torch.Generator().manual_seed(0))
    flat, axes = found.flatten(0, 1).double(), coordinates(found)
    torch.testing.assert_close(axes @ axes.T, flat @ flat.T)


@functools.cache
def measured() -> dict[str, tuple[Estimator, Accuracy]]:
    """Every estimator of the table's gradient, from 2,000 batches."""
    theta, generator = logits().requires_grad_(), torch.Generator().manual_seed(1)
    logprobs, found = scores(table(theta), TABLES.mask, [theta])
    truth, axes = solve(TABLES, logprobs), coordinates(found)
    shape = (len(TABLES.states), len(ACTS))
    grouped = Batches(sample(TABLES, logprobs, 2_000 * N_GROUPS, GROUP_SIZE, generator), SIZE, shape)
    alone = Batches(sample(TABLES, logprobs, 2_000 * SIZE, 1, generator), SIZE, shape)
    exact = truth.coefficients.flatten() @ axes
    return {e.name: (e, accuracy(e.coefficients(grouped if e.grouped else alone) @ axes, exact)) for e in menu(truth)}


@pytest.mark.slow
def test_estimators_without_bias_are_within_four_sigmas() -> None:
    unbiased = {name: found for name, (estimator, found) in measured().items() if estimator.unbiased}
    assert len(unbiased) == 9
    for name, found in unbiased.items():
        assert found.verdict(4) == "none", f"{name}: {found}"
        assert found.scale == pytest.approx(1, abs=0.1) and found.cosine > 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bias"),
    [
        ("group mean (Dr. GRPO)", "scale"),  # its own return is in the mean: (n - 1) / n of the gradient
        ("group mean, / deviation", "direction"),
        ("group mean, / length", "direction"),
        ("GRPO: / deviation, / length", "direction"),
        ("REINFORCE++", "scale"),  # of the direction too, with fewer episodes or more turns
        ("turn index (verl#7244)", "direction"),
        ("turn index, corrected", "none"),
        ("GAE 0, constant critic", "direction"),
        ("GAE 0, wrong critic", "direction"),
    ],
)
def test_biases_are_of_the_kind_that_is_expected(name: str, bias: str) -> None:
    _, found = measured()[name]
    assert found.verdict(4) == bias, found


@pytest.mark.slow
def test_a_group_mean_with_ones_own_return_shortens_the_gradient_by_the_share_of_one() -> None:
    assert measured()["group mean (Dr. GRPO)"][1].scale == pytest.approx((GROUP_SIZE - 1) / GROUP_SIZE, abs=0.05)


def test_the_hidden_bonus_of_a_turn_index_is_minus_what_later_turns_earn() -> None:
    """With many episodes in a group, the expected advantage of going on lacks what those who go on earn; of stopping, nothing."""
    logprobs = TABLES.random()
    found = sample(TABLES, logprobs, 1, 40_000, torch.Generator().manual_seed(0))
    wrong, right = turn_index(found)[:, 0], turn_index_corrected(found)[:, 0]
    going_on = found.mask[:, 1]
    to_come = float(found.rewards[going_on, 1:].sum() / going_on.sum())
    gap = [float(table[going_on].mean() - table[~going_on].mean()) for table in (wrong, right)]
    # the means of later turns are over those who come so far, and are taken from them alone
    assert gap[1] - gap[0] == pytest.approx(to_come, abs=1e-4)


def test_an_estimate_of_known_bias_and_variance() -> None:
    truth = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64)
    noise = torch.randn(20_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    none, scaled, turned = (accuracy(noise + mean, truth) for mean in (truth, truth / 2, truth + torch.tensor([0, 0, 5.0])))
    assert none.verdict(4) == "none" and none.deviation == pytest.approx(3**0.5 / 5, rel=0.02) and none.snr == pytest.approx(25 / 3, rel=0.05)
    assert scaled.verdict(4) == "scale" and (scaled.scale, scaled.bias, scaled.cosine) == pytest.approx((0.5, 0.5, 1), abs=0.01)
    assert turned.verdict(4) == "direction" and (turned.turned, turned.cosine, turned.angle) == pytest.approx((1, 0.5**0.5, 45), rel=0.02)
    assert accuracy(noise - truth, truth).verdict(4) == "direction"


@pytest.fixture(scope="module")
def spoken() -> LikelihoodPolicy:
    """The bundled language model with an adapter that has learnt nothing yet."""
    torch.manual_seed(0)
    policy = LikelihoodPolicy(CausalLM("bundled", dtype="float32", adapter=Lora()), Quarry(LAYERS), "tokens", temperature=1.0, critic_width=8)
    policy.prepare((), CPU)
    return policy


def test_the_language_models_gradient_is_that_of_finite_differences(spoken: LikelihoodPolicy) -> None:
    parameters = list(spoken.lm.parameters())
    logprobs, found = scores(rows(spoken, Quarry(LAYERS), TABLES), TABLES.mask, parameters)
    gradient = solve(TABLES, logprobs).coefficients.flatten() @ found.flatten(0, 1).double()
    kept = torch.nn.utils.parameters_to_vector(parameters).detach().clone()
    step = 1e-2
    other = torch.randn(len(kept), generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def value(at: Tensor) -> float:
        torch.nn.utils.vector_to_parameters(at, parameters)
        return float(solve(TABLES, torch.stack(list(rows(spoken, Quarry(LAYERS), TABLES))).double().log_softmax(-1)).value)

    try:
        for direction in ((gradient / gradient.norm()).float(), other / other.norm()):
            slope = (value(kept + step * direction) - value(kept - step * direction)) / (2 * step)
            assert float(gradient @ direction.double()) == pytest.approx(slope, rel=1e-2, abs=1e-3 * float(gradient.norm()))
    finally:
        torch.nn.utils.vector_to_parameters(kept, parameters)


class Watched:
    """What an algorithm played, and the gradient by which it would have moved; it does not move."""

    def __init__(self, algorithm: PolicyGradient, policy: LikelihoodPolicy) -> None:
        parameters = list(policy.lm.parameters())
        account = algorithm.account

        def update() -> None:
            self.gradient = -torch.cat([parameter.grad.flatten() for parameter in parameters]).double()
            algorithm.forget()

        def keep(batch: Batch, *rest: Any) -> None:
            self.batch = batch
            account(batch, *rest)

        algorithm.update, algorithm.account = update, keep  # type: ignore[method-assign]
        algorithm.learn(policy, lambda: Quarry(LAYERS).make("train"), Learning(lambda *_: True, 0, CPU))

    def episodes(self, group_size: int) -> Episodes:
        """The same in the study's form."""
        told = {MODEL.told(state): row for row, state in enumerate(TABLES.states)}
        places = torch.tensor([told[said.observation] for said in self.batch.said])
        acts = torch.tensor([said.act for said in self.batch.said])
        (states, mask), (acts, _), (rewards, _) = map(self.batch.by_episode, (places, acts, self.batch.rewards.double()))
        return Episodes(states, acts, rewards, mask, torch.arange(len(mask)) // group_size)


def algorithm(name: str, **changed: Any) -> PolicyGradient:
    node = OmegaConf.load(CONF / "algo" / f"{name}.yaml")
    sizes = {"n_episodes": SIZE, "n_groups": N_GROUPS, "group_size": GROUP_SIZE, "batch_size": BATCH_SIZE, "total_steps": 1, "n_epochs": 1}
    fixed = {"critic_warmup": 0.0, "vf_coef": 0.0, "target_kl": None}
    kept = {key: value for key, value in node.items() if key != "defaults"}
    built: PolicyGradient = build({**kept, **{key: value for key, value in {**sizes, **fixed}.items() if key in kept}, **changed}, "algo")
    return built


@pytest.mark.parametrize(
    ("name", "changed", "estimator"),
    [
        ("reinforce", {"advantage": "rloo"}, "RLOO"),
        ("reinforce", {"advantage": "reinforce_plus_plus"}, "REINFORCE++"),
        ("grpo", {"loss": "dr_grpo"}, "group mean (Dr. GRPO)"),
        ("grpo", {"loss": "grpo"}, "DAPO, algo=grpo: / deviation, / turns"),
        ("grpo", {"loss": "gspo"}, "DAPO, algo=grpo: / deviation, / turns"),
        ("grpo", {"loss": "cispo"}, "DAPO, algo=grpo: / deviation, / turns"),
        ("grpo", {"loss": "dapo"}, "DAPO, algo=grpo: / deviation, / turns"),
        ("ppo_text", {}, "algo=ppo_text, perfect critic"),  # its fresh critic says everywhere what episodes came to on average
    ],
)
def test_the_study_speaks_of_the_gradients_that_the_algorithms_follow(name: str, changed: dict[str, Any], estimator: str, spoken: LikelihoodPolicy) -> None:
    torch.manual_seed(1)
    watched = Watched(algorithm(name, **changed), spoken)
    logprobs, found = scores(rows(spoken, Quarry(LAYERS), TABLES), TABLES.mask, list(spoken.lm.parameters()))
    truth = solve(TABLES, logprobs)
    played = watched.episodes(1 if name == "ppo_text" else GROUP_SIZE)
    if name == "ppo_text":
        said = torch.full_like(truth.values, float(played.totals.mean()))
        truth = type(truth)(truth.value, said, truth.action_values, truth.visits, truth.logprobs)
    chosen = next(each for each in menu(truth) if each.name == estimator)
    coefficients = chosen.coefficients(Batches(played, len(played.mask), (len(TABLES.states), len(ACTS))))[0]
    scale = SIZE / BATCH_SIZE if changed.get("loss") == "dr_grpo" else 1.0  # a mean over the turns an update may have, which is no chance
    expected = scale * coefficients @ found.flatten(0, 1).double()
    assert float((watched.gradient - expected).norm()) < 2e-3 * float(expected.norm())
    assert float(expected.norm()) > 1e-6


def test_sampled_episodes_are_those_of_the_world(spoken: LikelihoodPolicy) -> None:
    """The same returns, lengths and visits, on average; and groups that begin alike."""
    logprobs = table(logits())
    truth, found = solve(TABLES, logprobs), sample(TABLES, logprobs, 4_000, 4, torch.Generator().manual_seed(0))
    assert float(found.totals.mean()) == pytest.approx(float(truth.value), abs=0.05)
    visits = torch.bincount(found.states[found.mask], minlength=len(TABLES.states)) / len(found.mask)
    torch.testing.assert_close(visits.double(), truth.visits, rtol=0, atol=0.03)
    assert bool((found.states[:, 0].view(-1, 4) == found.states[::4, :1]).all())
    assert per_episode(found).sum() == pytest.approx(found.mask.sum() / len(found.mask))
