"""Causal language models in Hugging Face layout: the bundled one, a local directory or a hub name; frozen, with LoRA, or learning whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor

from framework.config import Count
from framework.errors import ConfigError, DataError
from framework.interfaces import LanguageModel
from framework.lm.adapters import Full, Lora, lora_at
from framework.lm.generate import generate, stream
from framework.lm.layout import Pass, hidden_states, pack, trees, verify
from framework.lm.logprobs import logprobs, weighted_nll
from framework.lm.read_before import ReadBefore
from framework.lm.vllm_rollout import Vllm
from framework.precision import Precision, chosen, computing
from framework.types import Completion, Conversation, Ends, Ints, Likelihoods, Message, Reading, Sampling, Scores, Tokens

_TOGETHER = 1_024  # states whose likeliest token is sought together
BUNDLED = Path(__file__).parent / "bundled"
PLAIN_TEMPLATE = "{% for m in messages %}{{ m['content'] }}{{ eos_token if m['role'] == 'assistant' else '\n' }}{% endfor %}"
"""For models without a chat template: contents one after the other, what the assistant says closed by the end-of-text token."""


class CausalLM(LanguageModel):
    """A transformer that writes.

    Args:
        path: local directory or hub name; `bundled` is the small model that comes with Touchstone. A low-rank adapter that is found there, as a run with
            adapter=lora leaves it, goes on learning if low-rank updates are to be learnt; otherwise it is folded into the model that it belongs to.
        dtype: of computation; `auto` takes bfloat16 where the processor has it. Weights that learn are float32.
        pass_tokens: tokens that one training pass may hold; bounds memory, changes no result.
        adapter: what learns; nothing if None.
        rollout: what draws completions, but for those that are streamed; `framework.lm.generate` if None.
    """

    def __init__(
        self,
        path: str,
        dtype: Precision = "auto",
        pass_tokens: Count = 8_192,
        adapter: Lora | Full | None = None,
        rollout: Vllm | None = None,
    ) -> None:
        self.path, self.dtype, self.pass_tokens, self.adapter, self.rollout = path, dtype, pass_tokens, adapter, rollout
        self._before: ReadBefore | None = None

    def place(self, device: torch.device) -> None:
        """See `LanguageModel`.

        Raises:
            ConfigError: nothing usable at `path`, an adapter there of another size, a model that is to learn but cannot be laid out in trees, or
                no vLLM where it is to draw.
        """
        from transformers import AutoTokenizer

        if self.rollout is not None:
            self.rollout.check_installed()
        self.device = device
        self.compute = chosen(device, self.dtype)
        self.model = self._begun().to(device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(self._source)
        self.tokenizer.chat_template = self.tokenizer.chat_template or PLAIN_TEMPLATE
        self.context = int(min(self.tokenizer.model_max_length, self.model.config.max_position_embeddings))
        self.width = self._head.in_features
        if self.adapter is not None:
            verify(self.model)

    def encode(self, conversation: Conversation) -> Tokens:
        """See `LanguageModel`.

        Every stretch that the assistant says is tokenised by itself, so that what is learnt follows exactly the tokens that `prompt`
        gives when the model has to speak.
        """
        ids: list[int] = []
        weights: list[float] = []
        told = ""
        for number, message in enumerate(conversation.messages):
            if message.role != "assistant":
                continue
            before, after = self._render(conversation.messages[:number], speak=True), self._render(conversation.messages[: number + 1])
            if not (before.startswith(told) and after.startswith(before)):
                raise DataError(
                    f"{conversation.origin}: the chat template of {self.path} rewrites earlier turns, so no turn can be learnt apart; use another model"
                )
            context, said = self._ids(before[len(told) :]), self._ids(after[len(before) :])
            spoken = 1 + next((place for place, token in enumerate(said) if token in self.end_ids), len(said) - 1)
            ids += context + said
            weights += [0.0] * len(context) + [message.weight] * spoken + [0.0] * (len(said) - spoken)
            told = after
        return Tokens(np.array(ids), np.array(weights))

    def prompt(self, messages: Sequence[Message]) -> Ints:
        """See `LanguageModel`."""
        return np.array(self._ids(self._render(messages, speak=True)))

    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """See `LanguageModel`."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def losses(self, examples: Sequence[Tokens]) -> Iterator[Tensor]:
        """See `LanguageModel`."""
        found, _ = trees(examples)
        for laid in pack(found, pass_tokens=self.pass_tokens, device=self.device):
            with computing(self.device, self.dtype):
                yield weighted_nll(hidden_states(self.model, laid), self._head.weight, laid.targets, laid.weights, bias=self._head.bias)

    def score(self, examples: Sequence[Tokens], temperature: float = 1.0) -> Iterator[Scores]:
        """See `LanguageModel`."""
        found, order = trees(examples)
        first = np.cumsum([0, *(np.count_nonzero(example.weights) for example in examples)])
        for laid in pack(found, pass_tokens=self.pass_tokens, device=self.device):
            with computing(self.device, self.dtype):
                hidden = hidden_states(self.model, laid)
                likely = logprobs(hidden, self._head.weight, laid.targets, temperature=temperature, bias=self._head.bias)
            owners = order[laid.owners.cpu().numpy()]
            starts = np.flatnonzero(np.diff(owners, prepend=-1))  # the tokens of an example stand together
            draws = first[owners] + np.arange(len(owners)) - np.repeat(starts, np.diff(starts, append=len(owners)))
            draws, examples_here, at = (torch.as_tensor(x, device=self.device) for x in (draws, owners[starts], starts))
            yield Scores(likely, draws, hidden[at].float(), examples_here)

    def likelihoods(self, groups: Sequence[Sequence[Tokens]]) -> Iterator[Likelihoods]:
        """See `LanguageModel`."""

        def weighted(laid: Pass) -> tuple[Tensor, Tensor]:
            return laid.owners, laid.weights * logprobs(hidden_states(self.model, laid), self._head.weight, laid.targets, bias=self._head.bias)

        for sums, members in self._summed(groups, weighted):
            yield Likelihoods(sums.view(len(members), -1), members)

    def ends(self, groups: Sequence[Sequence[Tokens]]) -> Iterator[Ends]:
        """See `LanguageModel`."""

        def last(laid: Pass) -> tuple[Tensor, Tensor]:
            return laid.branches, hidden_states(self.model, laid, laid.ends).float()

        for states, members in self._summed(groups, last, self.width):
            yield Ends(states, members)

    def _summed(self, groups: Sequence[Sequence[Tokens]], read: Callable[[Pass], tuple[Tensor, Tensor]], *shape: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What `read` makes of passes, by branch, summed for each example, `[E, *shape]`, and the numbers of the groups; in parts that one pass holds."""
        for members in _passes(groups, self.pass_tokens):
            found, order = trees([example for number in members for example in groups[number]])
            examples = torch.as_tensor(order, device=self.device)
            sums = torch.zeros(len(order), *shape, device=self.device)
            for laid in pack(found, pass_tokens=self.pass_tokens, device=self.device):
                with computing(self.device, self.dtype):
                    branches, values = read(laid)
                sums = sums.index_add(0, examples[branches], values)
            yield sums, torch.as_tensor(members, device=self.device)

    @torch.no_grad()
    def states(self, prompts: Sequence[Ints]) -> Tensor:
        """See `LanguageModel`."""
        distinct: dict[bytes, int] = {}
        places = [distinct.setdefault(np.asarray(prompt, np.int64).tobytes(), len(distinct)) for prompt in prompts]
        read = [np.frombuffer(prompt, np.int64) for prompt in distinct]
        found, order = trees([Tokens(prompt, np.zeros(len(prompt))) for prompt in read])
        states, prompts_of = torch.empty(len(read), self.width, device=self.device), torch.as_tensor(order, device=self.device)
        for laid in pack(found, pass_tokens=self.pass_tokens, device=self.device):
            with computing(self.device, self.dtype):
                states[prompts_of[laid.branches]] = hidden_states(self.model, laid, laid.ends).float()
        return states[places]

    @torch.no_grad()
    def read(self, examples: Sequence[Tokens]) -> Sequence[Reading]:
        """See `LanguageModel`."""
        found, order = trees(examples)
        nll: list[list[float]] = [[] for _ in examples]
        correct: list[list[bool]] = [[] for _ in examples]
        for laid in pack(found, pass_tokens=self.pass_tokens, device=self.device):
            with computing(self.device, self.dtype):
                hidden = hidden_states(self.model, laid)
                likely = logprobs(hidden, self._head.weight, laid.targets, bias=self._head.bias)
                best = torch.cat([self._head(part).argmax(-1) for part in hidden.split(_TOGETHER)]) == laid.targets
            for owner, value, right in zip(order[laid.owners.cpu().numpy()], (-likely).tolist(), best.tolist(), strict=True):
                nll[owner].append(value)
                correct[owner].append(right)
        return [Reading(np.array(a), np.array(b, bool)) for a, b in zip(nll, correct, strict=True)]

    def generate(self, prompts: Sequence[Ints], sampling: Sampling, n: int = 1, seed: int | None = None) -> Sequence[Sequence[Completion]]:
        """See `LanguageModel`.

        Raises:
            ConfigError: an allowed text cannot be said.
        """
        how: dict[str, Any] = {"end_ids": self.end_ids, "decode": self._text, "generator": _generator(seed)}
        if self.rollout is not None:
            how |= {"dtype": self.compute, "period": self._before}
            return self.rollout.generate(self.model, self.tokenizer, prompts, sampling, n, **how)
        how |= {"allowed": [self._allowed(sampling)] * len(prompts) if sampling.allowed else None, "before": self._before}
        with computing(self.device, self.dtype):  # as when it learns, so that what was likely then is as likely now
            return generate(self.model, prompts, sampling, n, **how)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """See `LanguageModel`."""
        self._before = ReadBefore()
        try:
            yield
        finally:
            self._before = None

    def stream(self, prompt: Ints, sampling: Sampling, seed: int | None = None) -> Iterator[str]:
        """See `LanguageModel`."""
        allowed = self._allowed(sampling) if sampling.allowed else None
        return stream(self.model, prompt, sampling, end_ids=self.end_ids, decode=self._text, generator=_generator(seed), allowed=allowed)

    def snapshot(self) -> Self:
        """See `LanguageModel`."""
        kept = copy.copy(self)
        kept.model = copy.deepcopy(self.model).requires_grad_(False)
        return kept

    def twin(self) -> Self:
        """See `LanguageModel`."""
        second = copy.copy(self)
        second.model = copy.deepcopy(self.model, {id(parameter): parameter for parameter in self.model.parameters() if not parameter.requires_grad})
        return second

    def base(self) -> CausalLM:
        """See `LanguageModel`."""
        return CausalLM(self.path, self.dtype, self.pass_tokens)

    def export(self, directory: Path) -> None:
        """See `LanguageModel`."""
        model = self.model.merge_and_unload() if isinstance(self.adapter, Lora) else self.model
        model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    def save(self, directory: Path) -> None:
        """See `LanguageModel`."""
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    def load(self, directory: Path) -> None:
        """See `LanguageModel`."""
        if isinstance(self.adapter, Lora):
            self.adapter.take(self.model, directory)
        elif isinstance(self.adapter, Full):
            self.model = self._with_adapter(self._load(str(directory))).to(self.device).eval()

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a turn."""
        named = self.model.generation_config.eos_token_id
        return frozenset({self.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])} - {None})

    @cached_property
    def _source(self) -> str:
        return str(BUNDLED) if self.path == "bundled" else self.path

    @property
    def _head(self) -> torch.nn.Linear:
        return cast(torch.nn.Linear, self.model.get_output_embeddings())

    def _begun(self) -> Any:
        """The network as it is at `path`, and in it what is to learn."""
        known = lora_at(self._source)
        if known is None:
            return self._with_adapter(self._load(self._source))
        model = self._load(known.base)
        if not isinstance(self.adapter, Lora):
            return self._with_adapter(known.folded_into(model))
        if (known.rank, known.alpha) != (self.adapter.rank, self.adapter.alpha):
            ours = f"adapter.rank={self.adapter.rank} adapter.alpha={self.adapter.alpha}"
            told = f"{self._source} holds a low-rank adapter of rank {known.rank} and alpha {known.alpha}"
            raise ConfigError("lm.path", f"{told}, and {ours} would go on from it; give adapter.rank={known.rank} adapter.alpha={known.alpha}")
        tuned = self._with_adapter(model)
        self.adapter.take(tuned, Path(self._source))
        return tuned

    def _load(self, source: str) -> Any:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        whole = self.adapter is not None and (isinstance(self.adapter, Full) or self.device.type == "cpu")
        try:
            return AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32 if whole else self.compute)
        except (OSError, ValueError) as error:
            told = str(error).strip().splitlines()[0]
            raise ConfigError(
                "lm.path", f"{source!r} holds no causal language model in Hugging Face layout, nor is it a name that the hub gives us ({told})"
            ) from error

    def _with_adapter(self, model: Any) -> Any:
        if isinstance(self.adapter, Full):
            return model
        model.requires_grad_(False)
        return model if self.adapter is None else self.adapter.onto(model, "CAUSAL_LM")

    def _render(self, messages: Sequence[Message], speak: bool = False) -> str:
        plain = [{"role": message.role, "content": message.content} for message in messages]
        return str(self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=speak))

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _allowed(self, sampling: Sampling) -> list[Ints]:
        """Allowed texts as the assistant says them, each with the token that ends its turn, so that one may be the beginning of another."""
        turn = self._ids(self._render([Message("user", "?"), Message("assistant", "!")]))
        end = [token for token in turn if token in self.end_ids][-1:] or [self.tokenizer.eos_token_id]
        said = {text: np.array([*self._ids(text), *end]) for text in sampling.allowed}
        for text, ids in said.items():
            if (read := self._text(ids[:-1])) != text:
                raise ConfigError("sampling.allowed", f"{self.path} cannot say {text!r}: in its tokens it is {read!r}; allow another text")
            if len(ids) > sampling.max_tokens:
                raise ConfigError("sampling.max_tokens", f"{text!r} takes {len(ids)} tokens with its end, and {sampling.max_tokens} may be said; allow more")
        return list(said.values())

    def _text(self, ids: Ints) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def _passes(groups: Sequence[Sequence[Tokens]], most: int) -> Iterator[list[int]]:
    """Numbers of groups in turn, so many together that they hold `most` tokens; one at least."""
    members: list[int] = []
    tokens = 0
    for number, group in enumerate(groups):
        size = sum(len(example.ids) for example in group)
        if members and tokens + size > most:
            yield members
            members, tokens = [], 0
        members.append(number)
        tokens += size
    if members:
        yield members


def _generator(seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(seed)
