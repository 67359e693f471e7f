"""From rows of tokens to a language model: the whole loop.

R, T: rows and their length; N: tokens that are predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from framework.config import Count, Fraction, NonNegative, NonNegativeCount, Positive
from framework.lm.logprobs import weighted_nll
from framework.precision import computing

Rows = NDArray[np.uint16]  # [R, T]
_NO_MARK = 262  # the first token that is neither a mark nor a single byte
_DRILL_WARMUP = 50  # updates


@dataclass(frozen=True)
class Shape:
    """Of a Llama-type transformer with tied embeddings."""

    layers: Count
    hidden: Count
    heads: Count
    kv_heads: Count
    feedforward: Count
    context: Count  # tokens it can read


@dataclass(frozen=True)
class Optimisation:
    """AdamW with a linear warm-up and a linear way down to nothing."""

    row_tokens: Count  # longest document that is read
    batch_rows: Count
    learning_rate: Positive
    warmup: Fraction  # of all updates
    weight_decay: NonNegative  # of matrices
    max_grad_norm: Positive


@dataclass(frozen=True)
class Drills:
    """Copying: tokens by chance, then the same again, of which the second time is learnt.

    Text teaches a model of this size to copy late or never. Drills before anything is read make the two layers that it takes (a token
    that knows its predecessor, and one that looks for itself: Olsson et al., 2022) in a thousand updates or two, with little to copy at
    first and ever more; drills beside the text keep it from forgetting them again.
    """

    updates: NonNegativeCount  # before anything is read
    tokens: Count  # of such an update, about
    shortest: Count  # tokens of what is said twice
    longest: Count  # in the end
    learning_rate: Positive
    beside: NonNegativeCount  # tokens of drills in every update while it reads, about

    def __post_init__(self) -> None:
        if self.shortest > self.longest:
            raise ValueError(f"drills.shortest: at most drills.longest = {self.longest}, not {self.shortest}")

    def draw(self, tokens: int, longest: int, vocabulary: int, begin: int, generator: torch.Generator) -> Tensor:
        """Rows `[R, 1 + 2 n]`: a mark of beginning, n tokens, and the same again."""
        length = int(torch.randint(self.shortest, longest + 1, (1,), generator=generator))
        said = torch.randint(_NO_MARK, vocabulary, (max(1, tokens // (2 * length)), length), generator=generator)
        return torch.cat([torch.full((len(said), 1), begin), said, said], dim=1)


def build_model(shape: Shape, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A model of random weights, float32."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.feedforward,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def loss(model: LlamaForCausalLM, rows: Rows) -> tuple[Tensor, int]:
    """Sum of the negative log-likelihoods of all tokens but marks of beginning and padding, nats, and how many they are.

    A document sees itself alone: its positions count from its mark of beginning, which is how transformers tells packed documents apart.
    """
    begin, pad = int(model.config.bos_token_id), int(model.config.pad_token_id)  # type: ignore[arg-type]
    ids = torch.as_tensor(rows.astype(np.int64), device=model.device)
    places = torch.arange(ids.shape[1], device=model.device).expand_as(ids)
    positions = places - places.masked_fill(ids != begin, 0).cummax(dim=1).values
    states = model.model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[:, :-1]
    targets = ids[:, 1:]
    told = (targets != begin) & (targets != pad)
    targets = targets[told]
    return weighted_nll(states[told], model.lm_head.weight, targets, torch.ones_like(targets, dtype=torch.float32)), len(targets)


def learn(model: LlamaForCausalLM, rows: Rows, how: Optimisation, drills: Drills, seed: int, tell: Callable[[int, Mapping[str, float]], None]) -> None:
    """Reads all rows once, in random order, with drills beside.

    Args:
        model: trained in place.
        rows: see `loss`.
        how: see `Optimisation`.
        drills: see `Drills`; their mean loss is added to that of the text.
        seed: of the order.
        tell: hears after every update of the updates made, with `train/loss` (nats a token), `train/learning_rate` and `drill/loss`.
    """
    generator, begin = torch.Generator().manual_seed(seed + 1), int(model.config.bos_token_id)  # type: ignore[arg-type]
    updates = steps(len(rows), how)
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": how.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=how.learning_rate, betas=(0.9, 0.95), fused=True)
    warmup = max(1, round(how.warmup * updates))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min((done + 1) / warmup, (updates - done) / max(1, updates - warmup)))
    model.train()
    for update, batch in enumerate(_batches(rows, how.batch_rows, seed), start=1):
        rate = float(schedule.get_last_lr()[0])
        with computing(model.device):
            total, count = loss(model, batch)
        (total / count).backward()
        metrics = {"train/loss": total.item() / count, "train/learning_rate": rate}
        if drills.beside:
            with computing(model.device):
                copied = copying_loss(model, drills.draw(drills.beside, drills.longest, model.config.vocab_size, begin, generator))
            copied.backward()
            metrics["drill/loss"] = copied.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), how.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        tell(update, metrics)


def drill(model: LlamaForCausalLM, how: Drills, max_grad_norm: float, seed: int, tell: Callable[[int, Mapping[str, float]], None]) -> None:
    """Teaches to copy; arguments as of `learn`, `drill/loss` is the loss of the second time in nats a token."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    generator, begin = torch.Generator().manual_seed(seed), int(model.config.bos_token_id)  # type: ignore[arg-type]
    model.train()
    for update in range(1, how.updates + 1):
        with computing(model.device):
            longest = how.shortest + round((how.longest - how.shortest) * update / how.updates)
            mean = copying_loss(model, how.draw(how.tokens, longest, model.config.vocab_size, begin, generator))
        mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        optimizer.param_groups[0]["lr"] = how.learning_rate * min(1.0, update / _DRILL_WARMUP)
        optimizer.step()
        optimizer.zero_grad()
        tell(update, {"drill/loss": mean.item()})


def copying_loss(model: LlamaForCausalLM, rows: Tensor) -> Tensor:
    """Mean negative log-likelihood of what is said the second time, but for its first token, which nobody can know; rows as of `Drills.draw`."""
    ids, length = rows.to(model.device), rows.shape[1] // 2
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, length + 1 : -1].flatten(0, 1)
    targets = ids[:, length + 2 :].flatten()
    return weighted_nll(states, model.lm_head.weight, targets, torch.full(targets.shape, 1 / len(targets), device=model.device))


def steps(rows: int, how: Optimisation) -> int:
    """Updates of one reading."""
    return math.ceil(rows / how.batch_rows)


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, rows: Rows, batch_rows: int) -> float:
    """Mean negative log-likelihood of the tokens of rows, nats."""
    model.eval()
    found = [loss(model, rows[first : first + batch_rows]) for first in range(0, len(rows), batch_rows)]
    model.train()
    return sum(total.item() for total, _ in found) / sum(count for _, count in found)


def _batches(rows: Rows, size: int, seed: int) -> Iterator[Rows]:
    order = np.random.default_rng(seed).permutation(len(rows))
    yield from (rows[order[first : first + size]] for first in range(0, len(rows), size))
