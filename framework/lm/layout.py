"""How examples lie in a pass: contexts that several share are read once, and nothing is padded.

A tree is a context and the branches that go on from it, or from a part of it: the completions of a prompt, the two sides of a
preference, one example of supervised tuning, or the turns of an episode whose story grows from turn to turn. Trees are laid out one
after the other in a single row; every token sees the context as far as its branch went along and what comes before it in its own
branch (`framework.lm.tree_attention`), at the positions it would have alone, so that the model reads each branch as if it stood alone.

T: tokens of a pass; N: tokens with weight.
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

from framework.errors import ConfigError
from framework.lm.logprobs import output_head
from framework.lm.tree_attention import ATTENTION, Sight
from framework.types import Floats, Ints, Tokens

_OWN = 1 / 4  # of its context that an example may read by itself and still leave another's context where they part


@dataclass(frozen=True, slots=True)
class Tree:
    """A context and what goes on from it."""

    prompt: Ints  # [P]; it has no weight
    branches: Sequence[Tokens]
    leaves: Sequence[int] = ()  # after how many tokens of the prompt each branch leaves it; after all of them unless given


@dataclass(frozen=True, slots=True)
class Pass:
    """Trees laid out, and where in them the predictions are."""

    ids: Tensor  # [T]
    positions: Tensor  # [T]
    sight: Sight
    sources: Tensor  # [N] where the states that predict the targets are
    targets: Tensor  # [N] token ids
    weights: Tensor  # [N] float32
    owners: Tensor  # [N] which branch a target belongs to, counted through all trees given to `pack`; ascending within a branch
    ends: Tensor  # [branches in this pass] where their last tokens are
    branches: Tensor  # [branches in this pass] which branches those are
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


def pack(trees: Sequence[Tree], pass_tokens: int = 4_096, device: torch.device | str = "cpu") -> Iterator[Pass]:
    """Lays trees out in passes.

    A tree that is larger than a pass is laid out in several, each with the context. Nothing is ever cut off: a single branch and its context may be
    longer than anything said here.

    Args:
        trees: see `trees`.
        pass_tokens: that a pass may hold.
        device: where the tensors go.

    Raises:
        ValueError: the first token of a tree without context has weight, but nothing predicts it.
    """
    together, held = list[_Piece](), 0
    for piece in _pieces(trees, pass_tokens):
        if together and held + piece.size > pass_tokens:
            yield _lay_out(together, device)
            together, held = [], 0
        together.append(piece)
        held += piece.size
    if together:
        yield _lay_out(together, device)


def hidden_states(model: Any, laid: Pass, at: Tensor | None = None) -> Tensor:
    """Last hidden states where the targets are predicted, or at other places, `[N, D]`, differentiable.

    Args:
        model: a causal language model of transformers, with or without adapter, that `verify` approves of; its head is not used.
        laid: what to read.
        at: places in it, as `laid.ends`; `laid.sources` unless given.

    Raises:
        ConfigError: the model sees only a window of what came before, and an example is longer.
    """
    network = backbone(model)
    window = getattr(network.config, "sliding_window", None)
    if window is not None and laid.depth > window:
        raise ConfigError("lm", f"some layers see {window} tokens at most, and an example has {laid.depth}; cut the examples or take another model")
    places = laid.sources if at is None else at
    with _finished_at(network, places, laid.ids.shape[0]), _attending(network):
        states: Tensor = network(input_ids=laid.ids[None], position_ids=laid.positions[None], use_cache=False, sight=laid.sight).last_hidden_state
    return states[0, places]


@contextmanager
def _finished_at(network: Any, places: Tensor, tokens: int) -> Iterator[None]:
    """In the last layer of a network of the Llama kind, what each token does by itself after it has seen the others is done at some places alone.

    Nobody asks what became of the other tokens: in supervised tuning more than half of all. They go on without it.
    """
    last: Any = network.layers[-1] if hasattr(network, "layers") else None
    if not hasattr(getattr(last, "mlp", None), "down_proj"):
        yield
        return
    chosen = places.unique()

    def pick(_: Any, given: tuple[Tensor]) -> tuple[Tensor]:
        return (given[0][:, chosen],)

    def spread(_: Any, __: Any, made: Tensor) -> Tensor:
        return made.new_zeros(1, tokens, made.shape[-1]).index_copy(1, chosen, made)

    parts = [last.mlp, *([last.self_attn.o_proj] if hasattr(last.self_attn, "o_proj") else [])]
    hooks = [hook for part in parts for hook in (part.register_forward_pre_hook(pick), part.register_forward_hook(spread))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _attending(network: Any) -> Iterator[None]:
    """Attention goes by a pass's sight for a while."""
    usual = network.config._attn_implementation
    network.config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        network.config._attn_implementation = usual


def backbone(model: Any) -> Any:
    """The network under the head, its adapters included."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model


@torch.no_grad()
def verify(model: Any) -> None:
    """Reads a few tokens in two ways, so that a model which this module cannot lay out, or whose head is not its last step, is refused.

    Raises:
        ConfigError: the logits are not the head's plain projection of the last hidden states, being scaled or capped; or branches
            that share a pass do not come out as they would alone, since the network does not go by position ids and attention alone.
    """
    weight, bias = output_head(model)
    scaled = ConfigError("lm", f"{type(model).__name__} scales or caps its logits after the head, which training here does not; take another model")
    if getattr(model.config, "final_logit_softcapping", None):
        raise scaled
    prompt, *branches = (np.arange(first, first + 4) % len(weight) for first in (1, 5, 9))
    tree = Tree(prompt, [Tokens(branch, np.ones(4)) for branch in branches])
    alone = [torch.as_tensor(np.concatenate([prompt, branch]), device=weight.device)[None] for branch in branches]
    training = model.training
    model.eval()
    try:
        logits = torch.cat([model(input_ids=ids, use_cache=False).logits[0, 3:-1] for ids in alone])
        states = torch.cat([backbone(model)(input_ids=ids, use_cache=False).last_hidden_state[0, 3:-1] for ids in alone])
        together = torch.cat([hidden_states(model, laid) for laid in pack([tree, tree], device=weight.device)])[: len(states)]
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError("lm", f"{type(model).__name__} does not let attention be laid out, as packed examples need ({error})") from error
    finally:
        model.train(training)
    if not _alike(F.linear(states.to(weight.dtype), weight, bias), logits):
        raise scaled
    if not _alike(together, states):
        raise ConfigError("lm", f"{type(model).__name__} does not go by position ids and attention alone, as packed examples need; take another model")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A tree that fits into a pass."""

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


def _pieces(trees: Sequence[Tree], most: int) -> Iterator[_Piece]:
    number = 0
    for tree in trees:
        piece = _Piece(tree.prompt, [], [], number)
        for branch, leaves in zip(tree.branches, tree.leaves or [len(tree.prompt)] * len(tree.branches), strict=True):
            if not leaves and len(branch.ids) and branch.weights[0]:
                raise ValueError("the first token of a tree has weight, but nothing stands before it that could predict it; give it weight 0")
            if piece.branches and piece.size + len(branch.ids) > most:
                yield piece
                piece = _Piece(tree.prompt, [], [], number)
            piece.branches.append(branch)
            piece.leaves.append(leaves)
            number += 1
        yield piece


def _lay_out(pieces: Sequence[_Piece], device: torch.device | str) -> Pass:
    ids: list[Ints] = []
    positions: list[Ints] = []
    stretches: list[tuple[int, int, int, int]] = []  # where context and stretch begin, the stretch's length, and what it sees of the context
    sources: list[Ints] = []
    targets: list[Ints] = []
    weights: list[Floats] = []
    owners: list[Ints] = []
    ends: list[int] = []
    at = 0
    for piece in pieces:
        first, deep = at, len(piece.prompt)
        whole = len(piece.branches) == 1 and piece.leaves == [deep]  # reads on as one
        ids.append(piece.prompt)
        positions.append(np.arange(deep))
        if deep and not whole:
            stretches.append((first, first, deep, 0))
        at += deep
        for which, (branch, leaves) in enumerate(zip(piece.branches, piece.leaves, strict=True)):
            length = len(branch.ids)
            ids.append(branch.ids)
            positions.append(leaves + np.arange(length))
            if whole and deep + length:
                stretches.append((first, first, deep + length, 0))
            elif length:
                stretches.append((first, at, length, leaves))
            before = at + np.arange(-1, length)  # the token before each, and the branch's last token
            before[0] = first + leaves - 1
            chosen = np.flatnonzero(branch.weights)
            sources.append(before[chosen])
            targets.append(branch.ids[chosen])
            weights.append(branch.weights[chosen])
            owners.append(np.full(len(chosen), piece.first + which))
            ends.append(int(before[-1]))
            at += length
    put = lambda x, dtype=torch.int64: torch.as_tensor(np.asarray(x), dtype=dtype).to(device)  # noqa: E731
    places, tokens, who = (np.concatenate(each).astype(np.int64) for each in (sources, targets, owners))
    along = np.concatenate(positions)
    return Pass(
        *(put(np.concatenate(ids)), put(along), _sight(stretches, device)),
        *(put(places), put(tokens), put(np.concatenate(weights), torch.float32), put(who)),
        *(put(ends), put([piece.first + which for piece in pieces for which in range(len(piece.branches))])),
        depth=int(along.max()) + 1,
    )


def _sight(stretches: Sequence[tuple[int, int, int, int]], device: torch.device | str) -> Sight:
    contexts, starts, lengths, offsets = np.array(stretches, np.int64).reshape(-1, 4).T
    return Sight.of(contexts, starts, lengths, offsets, device)


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Equal up to rounding, of half precision too: what is not meant to be equal differs by as much as the numbers themselves."""
    return bool((found.float() - expected.float()).norm() <= 0.02 * expected.float().norm())
