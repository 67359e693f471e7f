"""How examples lie in the rows of a batch: contexts that several share are read once, and short examples share a row.

A tree is a context and the branches that go on from it, or from a part of it: the completions of a prompt, the two sides of a
preference, one example of supervised tuning, or the turns of an episode whose story grows from turn to turn. It is laid out one part
after the other; every token sees the context as far as its branch went along and what comes before it in its own branch, at the
positions it would have alone, so that a model that goes by position ids and mask reads it as if each branch stood alone. Several
trees fill a row; rows of like length make a batch.

R, T: rows of a batch and their length; N: tokens with weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from framework.errors import ConfigError
from framework.lm.logprobs import output_head
from framework.types import Floats, Ints, Tokens

_CONTEXTS = 8  # contexts that a row of branches may be long: one in eight tokens at most is then read again in another row
_SLACK = 1 / 8  # of a batch's rows that may be padding
_PLAIN_WIDTH = 320  # tokens of a row; the attention of longer ones, a number for each pair of tokens, is more than caches hold
_OWN = 1 / 4  # of its context that an example may read by itself and still leave another's context where they part


@dataclass(frozen=True, slots=True)
class Tree:
    """A context and what goes on from it."""

    prompt: Ints  # [P]; it has no weight
    branches: Sequence[Tokens]
    leaves: Sequence[int] = ()  # after how many tokens of the prompt each branch leaves it; after all of them unless given


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch of rows, and where in it the predictions are."""

    ids: Tensor  # [R, T]
    positions: Tensor  # [R, T]
    mask: Tensor  # [R, 1, T, T] bool: which token (third index) sees which (fourth)
    sources: Tensor  # [N] where the states that predict the targets are, counted through all rows
    targets: Tensor  # [N] token ids
    weights: Tensor  # [N] float32
    owners: Tensor  # [N] which branch a target belongs to, counted through all trees given to `pack`; ascending within a branch
    ends: Tensor  # [branches in these rows] where their last tokens are, counted as the sources are
    branches: Tensor  # [branches in these rows] which branches those are
    depth: int  # tokens of the longest context with a branch


def trees(examples: Sequence[Tokens]) -> tuple[list[Tree], Ints]:
    """Examples that begin with the same tokens without weight become branches of one tree.

    The longest context is the first tree's prompt; every example whose context follows it most of the way leaves it where they part,
    and brings along what is left of its context. What remains is treated likewise.

    Returns:
        the trees, and for each of their branches, counted through all trees, which example it is.
    """
    contexts = np.array([_context(example) for example in examples], np.int64)
    table = np.full((len(examples), contexts.max(initial=0)), -1, np.int64)
    for row, example, length in zip(table, examples, contexts, strict=True):
        row[:length] = example.ids[:length]
    found, order = [], []
    left = np.argsort(-contexts, kind="stable")
    while len(left):
        prompt = table[left[0], : contexts[left[0]]]
        shared = (table[left, : len(prompt)] == prompt).cumprod(axis=1).sum(axis=1)
        joins = shared >= (1 - _OWN) * contexts[left]
        members, leaves = left[joins], shared[joins]
        branches = [Tokens(examples[i].ids[cut:], examples[i].weights[cut:]) for i, cut in zip(members, leaves, strict=True)]
        found.append(Tree(prompt, branches, leaves.tolist()))
        order.append(members)
        left = left[~joins]
    return found, np.concatenate([np.zeros(0, np.int64), *order])


def pack(trees: Sequence[Tree], budget: int = 160, batch_tokens: int = 4_096, device: torch.device | str = "cpu") -> Iterator[Rows]:
    """Lays trees out in rows of about `budget` tokens, and rows of like length in batches.

    Trees go into the first row that has room for them, the longest first; attention costs the square of a row, so a row is no longer
    than keeps it full. A long context makes its row as much longer as pays, up to eight contexts; branches beyond that take the
    context along into another row. Nothing is ever cut off: a single branch may be longer than anything said here.

    Args:
        trees: see `trees`.
        budget: tokens of a row.
        batch_tokens: of a batch, padding included.
        device: where the tensors go.

    Raises:
        ValueError: the first token of a tree without context has weight, but nothing predicts it.
    """
    rows = sorted(_fill(_pieces(trees, budget, batch_tokens), budget), key=_length)
    while rows:
        width = _length(rows[-1])
        most = max(1, batch_tokens // max(width, 1))
        taken = sum(_length(row) > (1 - _SLACK) * width for row in rows[-most:])
        rows, batch = rows[:-taken], rows[-taken:]
        yield _lay_out(batch, device)


def hidden_states(model: Any, rows: Rows, at: Tensor | None = None) -> Tensor:
    """Last hidden states where the targets are predicted, or at other places, `[N, D]`, differentiable.

    Args:
        model: a causal language model of transformers, with or without adapter, that `verify` approves of; its head is not used.
        rows: what to read.
        at: places in the rows, as `rows.ends`; `rows.sources` unless given.

    Raises:
        ConfigError: the model sees only a window of what came before, and an example is longer.
    """
    network = backbone(model)
    window = getattr(network.config, "sliding_window", None)
    if window is not None and rows.depth > window:
        raise ConfigError("lm", f"some layers see {window} tokens at most, and an example has {rows.depth}; cut the examples or take another model")
    seen = torch.zeros(rows.mask.shape, dtype=network.dtype, device=rows.mask.device).masked_fill(~rows.mask, torch.finfo(network.dtype).min)
    places = rows.sources if at is None else at
    with _finished_at(network, places, rows.ids.shape), _attending(rows.ids):
        states: Tensor = network(input_ids=rows.ids, position_ids=rows.positions, attention_mask=seen, use_cache=False).last_hidden_state
    return states.flatten(0, 1)[places]


@contextmanager
def _finished_at(network: Any, places: Tensor, shape: torch.Size) -> Iterator[None]:
    """In the last layer of a network of the Llama kind, what each token does by itself after it has seen the others is done at some places alone.

    Nobody asks what became of the other tokens: in supervised tuning more than half of all. They go on without it.
    """
    last: Any = network.layers[-1] if hasattr(network, "layers") else None
    if not hasattr(getattr(last, "mlp", None), "down_proj"):
        yield
        return
    chosen = places.unique()

    def pick(_: Any, given: tuple[Tensor]) -> tuple[Tensor]:
        return (given[0].flatten(0, 1)[chosen],)

    def spread(_: Any, __: Any, made: Tensor) -> Tensor:
        return made.new_zeros(*shape, made.shape[-1]).flatten(0, 1).index_copy(0, chosen, made).unflatten(0, shape)

    parts = [last.mlp, *([last.self_attn.o_proj] if hasattr(last.self_attn, "o_proj") else [])]
    hooks = [hook for part in parts for hook in (part.register_forward_pre_hook(pick), part.register_forward_hook(spread))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _attending(ids: Tensor) -> Iterator[None]:
    """On a processor, short rows `[R, T]` attend by plain products in bfloat16: the fused kernel's backward pass takes up to four times as long."""
    if ids.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled() or ids.shape[1] > _PLAIN_WIDTH:
        yield
        return
    allowed = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # by its name for GPUs alone, but heeded on processors too
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(allowed)


def backbone(model: Any) -> Any:
    """The network under the head, its adapters included."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model


@torch.no_grad()
def verify(model: Any) -> None:
    """Reads a few tokens in two ways, so that a model which this module cannot lay out, or whose head is not its last step, is refused.

    Raises:
        ConfigError: the logits are not the head's plain projection of the last hidden states, being scaled or capped; or branches
            that share a row do not come out as they would alone, since the network does not go by position ids and mask alone.
    """
    weight, bias = output_head(model)
    prompt, *branches = (np.arange(first, first + 4) % len(weight) for first in (1, 5, 9))
    tree = Tree(prompt, [Tokens(branch, np.ones(4)) for branch in branches])
    alone = [torch.as_tensor(np.concatenate([prompt, branch]), device=weight.device)[None] for branch in branches]
    training = model.training
    model.eval()
    try:
        logits = torch.cat([model(input_ids=ids, use_cache=False).logits[0, 3:-1] for ids in alone])
        states = torch.cat([backbone(model)(input_ids=ids, use_cache=False).last_hidden_state[0, 3:-1] for ids in alone])
        together = torch.cat([hidden_states(model, rows) for rows in pack([tree, tree], device=weight.device)])[: len(states)]
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError("lm", f"{type(model).__name__} takes no position ids and 4-D attention mask, as packed rows need ({error})") from error
    finally:
        model.train(training)
    if getattr(model.config, "final_logit_softcapping", None) or not _alike(F.linear(states.to(weight.dtype), weight, bias), logits):
        raise ConfigError("lm", f"{type(model).__name__} scales or caps its logits after the head, which training here does not; take another model")
    if not _alike(together, states):
        raise ConfigError("lm", f"{type(model).__name__} does not go by position ids and attention mask alone, as packed rows need; take another model")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A tree that fits into a row."""

    prompt: Ints
    branches: list[Tokens]
    leaves: list[int]
    first: int  # number of its first branch

    @property
    def size(self) -> int:
        return len(self.prompt) + sum(len(branch.ids) for branch in self.branches)


def _context(example: Tokens) -> int:
    """How many tokens stand before the first that has weight."""
    weighted = np.flatnonzero(example.weights)
    return int(weighted[0]) if len(weighted) else len(example.ids)


def _length(row: list[_Piece]) -> int:
    return sum(piece.size for piece in row)


def _pieces(trees: Sequence[Tree], budget: int, most: int) -> Iterator[_Piece]:
    number = 0
    for tree in trees:
        limit = max(budget, min(_CONTEXTS * len(tree.prompt), most))
        piece = _Piece(tree.prompt, [], [], number)
        for branch, leaves in zip(tree.branches, tree.leaves or [len(tree.prompt)] * len(tree.branches), strict=True):
            if not leaves and len(branch.ids) and branch.weights[0]:
                raise ValueError("the first token of a tree has weight, but nothing stands before it that could predict it; give it weight 0")
            if piece.branches and piece.size + len(branch.ids) > limit:
                yield piece
                piece = _Piece(tree.prompt, [], [], number)
            piece.branches.append(branch)
            piece.leaves.append(leaves)
            number += 1
        yield piece


def _fill(pieces: Iterator[_Piece], budget: int) -> list[list[_Piece]]:
    """First fit, the longest first."""
    rows: list[list[_Piece]] = []
    room: list[int] = []
    for piece in sorted(pieces, key=lambda piece: -piece.size):
        row = next((i for i, left in enumerate(room) if left >= piece.size), None)
        if row is None:
            rows.append([piece])
            room.append(budget - piece.size)
        else:
            rows[row].append(piece)
            room[row] -= piece.size
    return rows


def _lay_out(rows: list[list[_Piece]], device: torch.device | str) -> Rows:
    width = max(map(_length, rows))
    ids, positions, tree, part, along = (np.zeros((len(rows), width), np.int64) for _ in range(5))
    sources: list[Ints] = []
    targets: list[Ints] = []
    weights: list[Floats] = []
    owners: list[Ints] = []
    ends: list[int] = []
    branches: list[int] = []
    for r, row in enumerate(rows):
        at = 0
        for number, piece in enumerate(row, start=1):
            deep = len(piece.prompt)
            span = slice(at, at + piece.size)
            tree[r, span] = number
            ids[r, at : at + deep], positions[r, at : at + deep], along[r, at : at + deep] = piece.prompt, np.arange(deep), deep
            first, at = r * width + at, at + deep
            for which, (branch, leaves) in enumerate(zip(piece.branches, piece.leaves, strict=True), start=1):
                span, length = slice(at, at + len(branch.ids)), len(branch.ids)
                ids[r, span], positions[r, span], part[r, span], along[r, span] = branch.ids, leaves + np.arange(length), which, leaves
                before = r * width + at + np.arange(-1, length)  # the token before each, and the branch's last token
                before[0] = first + leaves - 1
                chosen = np.flatnonzero(branch.weights)
                sources.append(before[chosen])
                targets.append(branch.ids[chosen])
                weights.append(branch.weights[chosen])
                owners.append(np.full(len(chosen), piece.first + which - 1))
                ends.append(int(before[-1]))
                branches.append(piece.first + which - 1)
                at += length
    places, tokens, who = (np.concatenate(each).astype(np.int64) for each in (sources, targets, owners))
    put = lambda x, dtype=torch.int64: torch.as_tensor(np.asarray(x), dtype=dtype).to(device)  # noqa: E731
    return Rows(
        *(put(ids), put(positions), _mask(put(tree), put(part), put(positions), put(along))),
        *(put(places), put(tokens), put(np.concatenate(weights), torch.float32), put(who), put(ends), put(branches)),
        depth=int(positions.max()) + 1,
    )


def _mask(tree: Tensor, part: Tensor, positions: Tensor, along: Tensor) -> Tensor:
    """`[R, 1, T, T]`: the same tree, not later, and the same branch or the context that it went along; padding sees padding, lest a softmax be over nothing."""
    width = tree.shape[1]
    earlier = torch.ones(width, width, dtype=torch.bool, device=tree.device).tril()
    own = part[:, :, None] == part[:, None, :]
    context = (part[:, None, :] == 0) & (positions[:, None, :] < along[:, :, None])
    return (earlier & (tree[:, :, None] == tree[:, None, :]) & (own | context))[:, None]


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Equal up to rounding, of half precision too: what is not meant to be equal differs by as much as the numbers themselves."""
    return bool((found.float() - expected.float()).norm() <= 0.02 * expected.float().norm())
