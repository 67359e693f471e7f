"""Nouns: the records that parts exchange. Frozen, with shapes beside the fields; B is a batch, A the number of acts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Observations:
    """What a batch of environments shows before an act."""

    texts: Sequence[str]  # [B] one fact or utterance a line
    masks: Bools  # [B, A] acts that are allowed
    states: Ints  # [B, K] information states: for oracles and scripted references; no learner reads them


@dataclass(frozen=True, slots=True)
class Transition:
    """What one act did to a world."""

    reward_terms: Mapping[str, float]  # named, in the world's unit; their sum is the reward
    costs: Mapping[str, float] = field(default_factory=dict)  # safety constraints, apart from the reward
    terminated: bool = False
    proxy: float = 0.0  # what the exploitable stand-in for the reward would pay


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a reason may rest on: phrases that the situation bears out, and phrases that it contradicts."""

    true: Sequence[str] = ()
    false: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ActionEvaluation:
    """What a policy thinks of given acts; every field is differentiable."""

    logprobs: torch.Tensor  # [B]
    entropy: torch.Tensor  # [B] nats
    values: torch.Tensor  # [B]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a policy of known worth earns, exactly or by roll-out, and what it costs an episode."""

    value: float
    costs: Mapping[str, float] = field(default_factory=dict)
    episodes: int | None = None  # over which it was played; None: known exactly


@dataclass(frozen=True, slots=True)
class Step:
    """One line of an episode's story.

    Attributes:
        observation: what was shown.
        act: by its name; empty where nothing was understood.
        reward_terms: what the world paid, term by term.
        costs: what it counted beside that.
        proxy: what its exploitable stand-in for the reward paid.
        state: the information state before the act, as the oracle indexes it.
        left: that in which the clock ended the episode; None if it did not.
        said: the words in which the act was put, where it was put in words.
        fields: what else was known of what was shown, to who judges what is said.
    """

    observation: str
    act: str
    reward_terms: Mapping[str, float]
    costs: Mapping[str, float]
    proxy: float = 0.0
    state: tuple[int, ...] = ()
    left: tuple[int, ...] | None = None
    said: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def reply(self) -> str:
        """What was said, or the name of the act of who only names acts."""
        return self.said or self.act


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode as it was played, with the value that evaluation gives it (see `framework.evaluation`)."""

    seed: int
    steps: Sequence[Step]
    value: float


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A situation as an expert knows it: what each act is worth there, and what an ideal reader gathers from the text."""

    observation: str
    mask: Bools  # [A]
    action_values: Floats  # [A]; -inf where the act is not allowed
    state: tuple[int, ...]  # the information state


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str  # system, user or assistant
    content: str
    weight: float = 1.0  # of an assistant's message in the loss; 0 makes it mere context


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order, the last of them an assistant's; what is learnt are the assistant's messages that have weight."""

    messages: Sequence[Message]
    origin: str = ""  # file and line, for messages to people
    fields: Mapping[str, str] = field(default_factory=dict)  # what else is known of it: extra columns, what a scorer needs

    @property
    def prompt(self) -> Sequence[Message]:
        """All but the last message."""
        return self.messages[:-1]

    @property
    def completion(self) -> str:
        """What the last message says."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class Preference:
    """Two ways to go on, and which of them was liked better.

    A prompt with two completions is a conversation of one turn; an episode is one of many, in which the user shows observations and the
    assistant names acts. Whatever is known of the truth is for judging what was learnt, not for learning.
    """

    chosen: Conversation
    rejected: Conversation
    label: float = 1.0  # share of the liking that is for `chosen`; 0.5: a tie
    probability: float = math.nan  # with which the teacher likes `chosen` better, its mistakes included, where that is known
    margin: float = math.nan  # gold of `chosen` less gold of `rejected`, where that is known


@dataclass(frozen=True, slots=True)
class Tokens:
    """A conversation as a language model reads it."""

    ids: Ints  # [T]
    weights: Floats  # [T] of each token's negative log-likelihood; 0: context, a prompt's token or a mark that nobody says


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference as a language model reads it: the shared messages are context, and what differs is judged."""

    chosen: Tokens
    rejected: Tokens
    label: float = 1.0  # see `Preference`
    reference: tuple[float, float] = (0.0, 0.0)  # log-likelihoods of both under the model that is not to be left behind, nats
    other: Pair | None = None  # the same context, gone on with as in another pair: what KTO measures its distance from the reference by


@dataclass(frozen=True, slots=True)
class Reading:
    """What a language model makes of the tokens of an example that have weight."""

    nll: Floats  # [tokens with weight] negative log-likelihood, nats
    correct: Bools  # [tokens with weight] whether the token was the likeliest


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the likeliest."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    stop: Sequence[str] = ()  # strings at which a completion ends; they are cut off
    allowed: Sequence[str] = ()  # texts of which exactly one is said: each token is drawn from those that lead on to one; none: anything may be said


@dataclass(frozen=True, slots=True)
class Completion:
    """What a language model said, as it was sampled: never tokenised again."""

    ids: Ints  # [T], the end-of-turn token included where there is one
    logprobs: Floats  # [T] at the sampling temperature, before top-k and top-p; among the tokens that lead on, where only some texts are allowed
    text: str
    finish_reason: str  # stop or length
    state: Floats | None = None  # [D] hidden state at the end of the prompt; None where whoever drew it does not tell


@dataclass(frozen=True, slots=True)
class Reply:
    """What a policy does."""

    act: int  # -1: nothing that is allowed was understood
    said: str = ""  # in which words, by who speaks


@dataclass(frozen=True, slots=True)
class Utterance:
    """An act as a policy put it, kept as it was drawn; a policy that picks among given texts draws once, one that writes once a token."""

    observation: str
    mask: Bools  # [A] acts that were allowed
    act: int  # -1: nothing that is allowed was understood
    text: str
    tokens: Tokens  # the prompt, then what was said of it token by token, of weight 1 each
    logprobs: Floats  # [draws]
    finish_reason: str  # stop or length
    state: Floats | None = None  # [D] what the language model made of the observation when it was drawn; None: not kept


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model now thinks of some of the examples it was given, as many as one training pass holds; N: draws, E: examples of this part.

    A draw is a token that has weight, or an act.
    """

    logprobs: torch.Tensor  # [N] differentiable
    draws: torch.Tensor  # [N] which draws they are, counted through all examples given
    states: torch.Tensor  # [E, D] hidden states at the end of each prompt, differentiable
    examples: torch.Tensor  # [E] which examples they are


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Of some of the groups of examples that a model was given, as many as one training pass holds; G: groups of this part, K: examples of each."""

    logprobs: torch.Tensor  # [G, K] sum over tokens of weight times log-probability, nats; differentiable
    groups: torch.Tensor  # [G] which groups they are


@dataclass(frozen=True, slots=True)
class Ends:
    """Of some of the groups of examples that a model was given, as many as one training pass holds; G: groups of this part, E: all their examples."""

    states: torch.Tensor  # [E, D] hidden states at the examples' last tokens in float32, group by group; differentiable
    groups: torch.Tensor  # [G] which groups they are


@dataclass(frozen=True, slots=True)
class Liking:
    """What a model makes of pairs, by a loss."""

    losses: Floats  # [N]
    rewards: Floats  # [N, 2] of chosen and rejected: β times the logarithm of how much likelier than under the reference they are
    logprobs: Floats  # [N, 2] log-likelihoods, a mean over their tokens, nats
