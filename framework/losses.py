"""Losses as pure functions. B: sequences, pairs or scores; N: tokens of a batch, one after the other, without padding.

Policy gradients fall into two factors. A term per token `[N]` says what a token should become: `reinforce`, `ppo`, `gspo`, `cispo`.
A weighting `[N]` says what a token counts: `mean_of_sequences`, `mean_of_tokens`, `mean_of_budgets`. The loss is their product,
`weights @ terms`; with the weights of a whole step, the losses of its parts add up to the loss of the step.

| algorithm | term | weighting |
|---|---|---|
| REINFORCE, RLOO | `reinforce` | `mean_of_budgets`, up to scale: Monte-Carlo returns of whole sequences |
| PPO | `ppo` | `mean_of_tokens` |
| GRPO | `ppo` | `mean_of_sequences` |
| Dr. GRPO | `ppo` | `mean_of_budgets`, with advantages that are not divided by a deviation |
| DAPO | `ppo` with `clip_high` above `clip_low` | `mean_of_tokens` |
| GSPO | `gspo` | `mean_of_sequences` |
| CISPO | `cispo` | `mean_of_tokens` |

`sequences` `[N]` says which sequence, from 0, a token belongs to. Gradients reach `logprobs`, `values` and scores; whatever is old,
of a reference or an advantage is taken as constant.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def reinforce(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """−Aₜ log π(yₜ), `[N]` from `[N]` each (Williams, 1992; RLOO: Ahmadian et al., 2024). Where the ratio of `ppo` is 1, the gradients are the same."""
    _vectors(logprobs=logprobs, advantages=advantages)
    return -advantages.detach() * logprobs


def ppo(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float = 0.2, clip_high: float = 0.2) -> Tensor:
    """−min(ρₜAₜ, clip(ρₜ, 1 − ε_low, 1 + ε_high)Aₜ) with ρₜ = π(yₜ) / π_old(yₜ), `[N]` from `[N]` each.

    Schulman et al., 2017; two bounds: DAPO (Yu et al., 2025).
    """
    _vectors(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    return _clipped((logprobs - old_logprobs.detach()).exp(), advantages.detach(), clip_low, clip_high)


def gspo(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, sequences: Tensor, clip_low: float = 3e-4, clip_high: float = 4e-4) -> Tensor:
    """`ppo` with one ratio a sequence, the geometric mean of its tokens' ratios: sᵢ = exp(1/|yᵢ| ∑ₜ log ρₜ), `[N]` from `[N]` each.

    Zheng et al., 2025, whose bounds are the defaults. Under `mean_of_sequences` it is their objective.
    """
    _vectors(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, sequences=sequences)
    lengths = torch.bincount(sequences)
    sums = logprobs.new_zeros(len(lengths)).index_add(0, sequences, logprobs - old_logprobs.detach())
    return _clipped((sums / lengths.clamp(min=1)).exp()[sequences], advantages.detach(), clip_low, clip_high)


def cispo(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, most: float = 5.0) -> Tensor:
    """−sg(min(ρₜ, most)) Aₜ log π(yₜ), sg: no gradient; `[N]` from `[N]` each. No token's gradient is clipped away (MiniMax-M1, 2025)."""
    _vectors(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    return reinforce(logprobs, (logprobs - old_logprobs).exp().clamp(max=most) * advantages)


def mean_of_sequences(sequences: Tensor) -> Tensor:
    """1 / (B |yᵢ|), `[N]`: a mean over tokens within each sequence, then over sequences (GRPO: Shao et al., 2024)."""
    _vectors(sequences=sequences)
    lengths = torch.bincount(sequences)
    return 1.0 / (lengths[sequences] * (lengths > 0).sum())


def mean_of_tokens(sequences: Tensor) -> Tensor:
    """1 / ∑ᵢ |yᵢ|, `[N]`: every token counts the same (DAPO: Yu et al., 2025)."""
    _vectors(sequences=sequences)
    return torch.full(sequences.shape, 1 / max(1, len(sequences)), device=sequences.device)


def mean_of_budgets(sequences: Tensor, max_tokens: int, count: int | None = None) -> Tensor:
    """1 / (B max_tokens), `[N]`: every token counts the same whatever the sequences' lengths (Dr. GRPO: Liu et al., 2025).

    Args:
        sequences: which of them a token belongs to.
        max_tokens: of a sequence.
        count: B where it is not the number of sequences there are; that is chance where sequences are turns, and to divide by it a bias.
    """
    _vectors(sequences=sequences)
    return torch.full(sequences.shape, 1 / (max_tokens * (count or max(1, len(sequences.unique())))), device=sequences.device)


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """log π − log π_ref, `[N]`: estimates KL(π ‖ π_ref) on samples of π without bias, with high variance (Schulman, 2020). Its gradient has mean 0."""
    _vectors(logprobs=logprobs, reference=reference)
    return logprobs - reference.detach()


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """π_ref/π − 1 − log(π_ref/π), `[N]`: without bias, never negative (Schulman, 2020; GRPO)."""
    return torch.expm1(-k1(logprobs, reference)) + k1(logprobs, reference)


def clipped_value(values: Tensor, old_values: Tensor, returns: Tensor, clip: float = 0.2) -> Tensor:
    """½ max((V − R)², (clip(V, V_old − ε, V_old + ε) − R)²), `[N]` from `[N]` each (Schulman et al., 2017, in their code; Huang et al., 2022)."""
    _vectors(values=values, old_values=old_values, returns=returns)
    near = old_values + (values - old_values).clamp(-clip, clip)
    return torch.maximum((values - returns).square(), (near - returns).square()) / 2


def dpo(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    """−log σ(β(r_chosen − r_rejected)), `[B]`, with r = log π(y) − log π_ref(y) of whole completions, `[B]` (Rafailov et al., 2023)."""
    _vectors(chosen=chosen, rejected=rejected)
    return -logsigmoid(beta * (chosen - rejected))


def ipo(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    """(r_chosen − r_rejected − 1/(2β))², `[B]`, with r = (log π(y) − log π_ref(y)) / |y|, a mean over tokens, `[B]` (Azar et al., 2023)."""
    _vectors(chosen=chosen, rejected=rejected)
    return (chosen - rejected - 1 / (2 * beta)).square()


def robust_dpo(chosen: Tensor, rejected: Tensor, beta: float = 0.1, flipped: float = 0.1) -> Tensor:
    """`dpo` without bias where a share ε < ½ of the pairs is the wrong way round, `[B]` from log-ratios `[B]` as in `dpo`.

    (−(1 − ε) log σ(βΔ) + ε log σ(−βΔ)) / (1 − 2ε) with Δ = r_chosen − r_rejected (Chowdhury et al., 2024).
    """
    return ((1 - flipped) * dpo(chosen, rejected, beta) - flipped * dpo(rejected, chosen, beta)) / (1 - 2 * flipped)


def hinge(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    """max(0, 1 − β(r_chosen − r_rejected)), `[B]` from log-ratios `[B]` as in `dpo` (SLiC-HF: Zhao et al., 2023; RSO: Liu et al., 2023)."""
    _vectors(chosen=chosen, rejected=rejected)
    return (1 - beta * (chosen - rejected)).relu()


def kto(logratios: Tensor, desirable: Tensor, kl: Tensor, beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0) -> Tensor:
    """λ_D (1 − σ(β(r − z))) where desirable, λ_U (1 − σ(β(z − r))) where not, `[B]` (Ethayarajh et al., 2024).

    Args:
        logratios: r = log π(y) − log π_ref(y) of whole completions `[B]`.
        desirable: `[B]` bool.
        kl: z ≥ 0, an estimate of KL(π ‖ π_ref) from completions of other prompts, a scalar; taken as constant.
        beta: how strongly the reference holds.
        desirable_weight: λ_D.
        undesirable_weight: λ_U.
    """
    _vectors(logratios=logratios, desirable=desirable)
    gain = beta * (logratios - kl.detach().clamp(min=0))
    return torch.where(desirable, desirable_weight * torch.sigmoid(-gain), undesirable_weight * torch.sigmoid(gain))


def orpo(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    """−ℓ_chosen − β log σ(log odds(ℓ_chosen) − log odds(ℓ_rejected)), `[B]`, odds(ℓ) = eˡ / (1 − eˡ); needs no reference (Hong et al., 2024).

    Args:
        chosen: ℓ, mean log-probabilities over a completion's tokens, below 0, `[B]`.
        rejected: the same of the other completion `[B]`.
        beta: λ of the paper, the weight of the odds ratio beside the likelihood.
    """
    _vectors(chosen=chosen, rejected=rejected)
    log_odds = chosen - rejected - _log1mexp(chosen) + _log1mexp(rejected)
    return -chosen - beta * logsigmoid(log_odds)


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor | None = None, centring: float = 0.0) -> Tensor:
    """−log σ(s_chosen − s_rejected − m) + c (s_chosen + s_rejected)², `[B]`.

    Bradley and Terry, 1952; margin: Llama 2 (Touvron et al., 2023); centring: Eisenstein et al., 2023.

    Args:
        chosen: scores `[B]`.
        rejected: scores `[B]`.
        margin: by how much the better is better `[B]`.
        centring: weight c that keeps scores near 0, where only their differences are known.
    """
    _vectors(chosen=chosen, rejected=rejected, margin=chosen if margin is None else margin)
    ahead = chosen - rejected if margin is None else chosen - rejected - margin
    return -logsigmoid(ahead) + centring * (chosen + rejected).square()


def _clipped(ratios: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    return -torch.minimum(ratios * advantages, ratios.clamp(1 - low, 1 + high) * advantages)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 − eˣ) for x < 0, exact near 0 and far below it (Mächler, 2012)."""
    return torch.where(x > -0.6931, torch.log(-torch.expm1(x.clamp(min=-1))), torch.log1p(-x.exp().clamp(max=0.6)))


def _vectors(**tensors: Tensor) -> None:
    """All of rank 1 and of one length."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError("vectors of one length are wanted, not " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))
