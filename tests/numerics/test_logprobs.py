"""The head without its logits: the numbers are those of a plain computation, whatever the chunks, in values and in gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framework.errors import ConfigError
from framework.lm.logprobs import logprobs, output_head, weighted_nll

N, D, V = 23, 8, 57


def problem(dtype: torch.dtype = torch.float32, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """Hidden states, head, bias, targets and weights, some of them negative."""
    draw = torch.Generator().manual_seed(0)
    hidden, head, offset = (torch.randn(*shape, generator=draw).to(dtype).requires_grad_() for shape in ((N, D), (V, D), (V,)))
    return hidden, head, offset if bias else None, torch.randint(V, (N,), generator=draw), torch.randn(N, generator=draw)


def plain(hidden: Tensor, head: Tensor, bias: Tensor | None, targets: Tensor, temperature: float = 1.0) -> Tensor:
    return (F.linear(hidden, head, bias) / temperature).log_softmax(-1).gather(1, targets[:, None])[:, 0]


def gradients(loss: Tensor, *of: Tensor | None) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [x for x in of if x is not None]))


@pytest.mark.parametrize("chunk", [1, 7, N, None])
@pytest.mark.parametrize("bias", [True, False])
def test_weighted_nll_is_the_plain_sum_with_its_gradients(chunk: int | None, bias: bool) -> None:
    hidden, head, offset, targets, weights = problem(bias=bias)
    expected = -(plain(hidden, head, offset, targets) * weights).sum()
    found = weighted_nll(hidden, head, targets, weights, chunk, offset)
    torch.testing.assert_close(found, expected)
    for a, b in zip(gradients(3 * found, hidden, head, offset), gradients(3 * expected, hidden, head, offset), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 7, N, None])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_the_plain_ones_with_their_gradients(chunk: int | None, bias: bool, temperature: float) -> None:
    hidden, head, offset, targets, weights = problem(bias=bias)
    expected = plain(hidden, head, offset, targets, temperature)
    found = logprobs(hidden, head, targets, chunk, temperature, offset)
    torch.testing.assert_close(found, expected)
    for a, b in zip(gradients(found @ weights, hidden, head, offset), gradients(expected @ weights, hidden, head, offset), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_gradients_are_finite_differences() -> None:
    hidden, head, _, targets, weights = problem(bias=False)
    loss = weighted_nll(hidden, head, targets, weights, 5)
    again = (logprobs(hidden, head, targets, 5) * -weights).sum()
    direction = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ahead, behind = (-(plain(hidden.double() + step * direction, head.double(), None, targets) * weights).sum() for step in (1e-4, -1e-4))
    slope = (ahead - behind) / 2e-4
    for found in (loss, again):
        torch.testing.assert_close((gradients(found, hidden)[0] * direction).sum().double(), slope, rtol=1e-4, atol=1e-5)


def test_logprobs_may_be_differentiated_twice_over() -> None:
    hidden, head, _, targets, weights = problem(bias=False)
    found = logprobs(hidden, head, targets) @ weights
    first = torch.autograd.grad(found, hidden, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(found, hidden)[0], first)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, head, offset, targets, weights = problem()
    head, offset = head.detach(), offset.detach()
    for loss in (weighted_nll(hidden, head, targets, weights, 5, offset), logprobs(hidden, head, targets, 5, 1.0, offset).sum()):
        hidden.grad = None
        loss.backward()
        assert hidden.grad is not None and head.grad is None and offset.grad is None


def test_half_precision_sums_in_float32() -> None:
    hidden, head, _, targets, weights = problem(torch.bfloat16, bias=False)
    exact = -(plain(hidden.float(), head.float(), None, targets) * weights).sum()
    found = weighted_nll(hidden, head, targets, weights, 5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0.02)
    one, other = gradients(found, hidden, head)
    assert one.dtype == other.dtype == torch.bfloat16
    for a, b in zip((one, other), gradients(exact, hidden, head), strict=True):
        assert (a.float() - b.float()).norm() < 0.02 * b.float().norm()
    assert logprobs(hidden, head, targets).dtype == torch.float32


def test_autocast_multiplies_in_its_precision_and_gives_gradients_in_the_weights() -> None:
    hidden, head, _, targets, weights = problem(bias=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, singly = weighted_nll(hidden, head, targets, weights, 5), logprobs(hidden, head, targets, 5)
    expected = weighted_nll(hidden.bfloat16(), head.bfloat16(), targets, weights, 5)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(-(singly @ weights), expected)
    for loss in (found, singly @ weights):
        assert [x.dtype for x in gradients(loss, hidden, head)] == [torch.float32] * 2


def test_far_apart_logits_overflow_nothing() -> None:
    hidden, head = torch.tensor([[1.0]]), torch.tensor([[0.0], [200.0], [-200.0]])
    torch.testing.assert_close(logprobs(hidden, head, torch.tensor([2])), torch.tensor([-400.0]))
    torch.testing.assert_close(weighted_nll(hidden, head, torch.tensor([2]), torch.ones(1)), torch.tensor(400.0))


def test_nothing_to_predict_costs_nothing() -> None:
    head = torch.randn(V, D, requires_grad=True)
    loss = weighted_nll(torch.zeros(0, D, requires_grad=True), head, torch.zeros(0, dtype=torch.long), torch.zeros(0))
    loss.backward()
    assert loss == 0 and not head.grad.any()


def test_shapes_that_do_not_fit_are_refused() -> None:
    hidden, head, _, targets, weights = problem()
    with pytest.raises(ValueError, match="fit together"):
        logprobs(hidden[:, :-1], head, targets)
    with pytest.raises(ValueError, match="one weight a target"):
        weighted_nll(hidden, head, targets, weights[:-1])
    with pytest.raises(ValueError, match="temperature"):
        logprobs(hidden, head, targets, temperature=0.0)


def test_an_adapter_on_the_head_is_refused() -> None:
    class Model:
        def __init__(self, head: nn.Module) -> None:
            self.head = head

        def get_output_embeddings(self) -> nn.Module:
            return self.head

    linear = nn.Linear(D, V)
    weight, bias = output_head(Model(linear))
    assert weight is linear.weight and bias is linear.bias
    with pytest.raises(ConfigError, match="Sequential, not a plain linear layer"):
        output_head(Model(nn.Sequential(linear)))


@pytest.mark.slow
def test_log_probabilities_are_those_of_trl() -> None:
    utils = pytest.importorskip("trl.trainer.utils")
    hidden, head, _, targets, _ = problem(bias=False)
    found = logprobs(hidden, head, targets, 7)
    torch.testing.assert_close(found, utils.selective_log_softmax(F.linear(hidden, head), targets))
