"""Verbs: the whole contract between the parts, on one page.

A `Domain` makes worlds and knows their truth, a `Policy` acts, an `Algorithm` makes it act better, a `RewardModel` says what it
is trained on, a `Tracker` keeps the record. A plug-in subclasses one of these and names itself in a YAML file.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import gymnasium
import numpy as np
import torch

from framework.seeding import episode_seed
from framework.statistics import bootstrap
from framework.types import (
    ActionEvaluation,
    Bools,
    Completion,
    Conversation,
    Demonstration,
    Ends,
    Estimate,
    Floats,
    Grounds,
    Ints,
    Likelihoods,
    Liking,
    Message,
    Observations,
    Pair,
    Preference,
    Reading,
    Reference,
    Reply,
    Sampling,
    Scores,
    Step,
    Tokens,
    Utterance,
)

SPLITS = ("train", "validation", "test", "shift")
"""`validation`: unseen seeds, known wordings. `test`: unseen seeds and wordings. `shift`: the world itself changes."""


class World(gymnasium.Env[str, int], ABC):
    """A gymnasium environment whose observation is text and whose state can be read, kept and restored.

    `reset` and `step` return `info` with `action_mask`, `reward_terms` (their sum is the reward), `costs` and `proxy`.
    """

    acts: tuple[str, ...]
    max_steps: int

    @abstractmethod
    def action_mask(self) -> Bools:
        """Acts allowed now, `[A]`."""

    @abstractmethod
    def information_state(self) -> tuple[int, ...]:
        """All that an ideal reader can know from the text so far, as the oracle indexes it."""

    def grounds(self) -> Grounds:
        """What a reason given now may rest on; what it may not."""
        return Grounds()

    def fields(self) -> Mapping[str, str]:
        """What else is known of what is shown, for who judges what is said there; who acts is not told."""
        return {}

    def hear(self, said: str) -> None:
        """In which words the next act is put; told before it is taken. Most worlds go by the act alone."""

    @abstractmethod
    def idle(self) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """A turn in which nothing was said that is an act: only the clock goes on, and the cost `format` is charged."""

    @abstractmethod
    def get_state(self) -> dict[str, Any]:
        """Everything needed to go on exactly from here, as plain JSON."""

    @abstractmethod
    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `get_state` returned."""


class Oracle(ABC):
    """Knowledge of a world, exact unless it says otherwise.

    `references` holds at least `random`, `best_constant`, `heuristic`, `optimum`, `constrained_optimum` (the most that can be
    earned within the cost limits), `proxy_optimum` (what maximising the proxy truly earns) and `informed` (who sees the hidden state).
    Where nobody knows the optimum they are `random` and the `best` that is known, both as they were played (see `framework.worlds.played`).
    """

    best: ClassVar[str] = "optimum"  # the reference that scores 1

    @property
    def exact(self) -> bool:
        """Whether it is known what acts are worth, so that no episode need be scored by its luck."""
        return self.best == "optimum"

    def score(self, values: Floats) -> Estimate:
        """`(J - J_random) / (J_best - J_random)` of what the first episodes of the split were worth to a policy, `[episodes]`."""
        returns, low, high = bootstrap(values), self.references["random"].value, self.references[self.best].value
        return Estimate(*((value - low) / (high - low) for value in (returns.mean, returns.low, returns.high)))

    @property
    @abstractmethod
    def references(self) -> Mapping[str, Reference]:
        """Return and costs of the reference policies."""

    @abstractmethod
    def action_values(self, states: Ints) -> Floats:
        """Optimal action values `[B, A]` of information states `[B, K]`; -inf where the act is not allowed."""

    @property
    def prices(self) -> Mapping[str, float]:
        """What the constrained optimum would give for one violation more, by cost: its Lagrange multipliers, 0 where a limit does not bind."""
        raise TypeError(f"{type(self).__name__} knows no prices of its cost limits")

    def charged_values(self, states: Ints, prices: Mapping[str, float]) -> Floats:
        """`action_values` where each violation is charged at its price: of the reward less the sum of price times cost."""
        raise TypeError(f"{type(self).__name__} cannot charge costs")

    @abstractmethod
    def probabilities(self, reference: str, states: Ints) -> Floats:
        """What a reference policy does: `[B, A]`; there is none for references that only have a value, as `informed`."""


class Speech(ABC):
    """How acts are put in words, and words understood as acts."""

    @abstractmethod
    def understand(self, text: str) -> int | None:
        """The number of the act that is meant, or None."""

    @abstractmethod
    def answer(self, shown: str, act: int, rng: np.random.Generator) -> str:
        """An act in words, as a reply to what is shown."""

    def messages(self, shown: str) -> Sequence[Message]:
        """What is shown, as a language model is asked about it."""
        return (Message("user", shown),)


class Domain(ABC):
    """A family of worlds in one subject, one of which is in use: makes its environments and gives its oracle."""

    name: ClassVar[str]  # what is typed after domain=
    environment: ClassVar[str]  # which world; the gymnasium id is `name/environment-v0`
    acts: tuple[str, ...]
    cost_limits: Mapping[str, float]
    splits: tuple[str, ...] = SPLITS
    rehearsal: bool = False  # whether wordings held out of the training ones stand in for the test's, so that settings can be chosen by them
    phrases: ClassVar[Path | None] = None  # YAML: how acts are said and understood (see `framework.worlds.free_text`)
    speech: Speech | None = None  # what stands in place of such a phrasebook
    proxy: ClassVar[str] = ""  # what the exploitable stand-in for the reward is, in a line
    yardstick: ClassVar[str] = "random acts score 0 and the optimum 1"  # for tables
    real_splits: Mapping[str, int] = {}  # splits of recorded cases with true outcomes, and how many: scored by what happened

    @abstractmethod
    def make(self, split: str) -> World:
        """A fresh environment of a split; `reset(seed=...)` starts an episode."""

    def episodes_in(self, split: str) -> int | None:
        """How many different episodes a split has; None: there is no end to them."""
        return self.real_splits.get(split)

    def controls(self, split: str) -> Mapping[str, Floats]:
        """What others than a language model earn in the episodes of a split, where they are not references of its oracle: by name, `[episodes]`."""
        return {}

    @abstractmethod
    def oracle(self, split: str) -> Oracle:
        """The truth about a split."""

    def demonstrations(self, split: str, seed: int, wander: float = 0.5, prices: Mapping[str, float] | None = None) -> Iterator[Demonstration]:
        """Endless situations with the worth of every act, met on the optimal policy's way and off it.

        Args:
            split: where the situations come from.
            seed: of the choice of episodes and of wandering.
            wander: share of acts taken at random, so that situations off the best path are met too.
            prices: of costs, where acts are worth their reward less what they cost.
        """
        world, oracle, rng = self.make(split), self.oracle(split), np.random.default_rng(seed)
        while True:
            text, info = world.reset(seed=episode_seed(split, int(rng.integers(2**27))))
            ended = False
            while not ended:
                state = world.information_state()
                values = (oracle.charged_values(np.array([state]), prices) if prices else oracle.action_values(np.array([state])))[0]
                yield Demonstration(text, info["action_mask"], values, state)
                act = rng.choice(np.flatnonzero(info["action_mask"])) if rng.random() < wander else values.argmax()
                text, _, terminated, truncated, info = world.step(int(act))
                ended = terminated or truncated


class Policy(ABC):
    """Acts on text. Learning policies also evaluate acts, and keep their weights in a directory."""

    @abstractmethod
    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        """One act for each observation, `[B]`."""

    def reply(self, observations: Observations, deterministic: bool = False) -> Sequence[Reply]:
        """The acts, and the words of a policy that speaks, `[B]`."""
        return [Reply(int(act)) for act in self.act(observations, deterministic)]

    def playing(self) -> AbstractContextManager[None]:
        """For as long as some episodes last, in which it does not learn."""
        return nullcontext()

    def evaluate(self, observations: Observations, actions: Ints) -> ActionEvaluation:
        """Log-probability, entropy and value of given acts, with gradients."""
        raise TypeError(f"{type(self).__name__} does not learn")

    def prepare(self, observations: Sequence[str], device: torch.device) -> None:
        """Called once before learning with sampled training observations: fits statistics, loads and places weights."""

    def save(self, directory: Path, working: bool = False) -> None:
        """Writes safetensors and JSON; for a run that shall go on exactly, its working memory too."""
        raise TypeError(f"{type(self).__name__} has nothing to save")

    def load(self, directory: Path, device: torch.device) -> None:
        """Restores what `save` wrote."""
        raise TypeError(f"{type(self).__name__} has nothing to load")

    def snapshot(self) -> Policy:
        """This policy as it is now, to compare with what becomes of it.

        Raises:
            TypeError: it keeps no copy of itself.
        """
        raise TypeError(f"{type(self).__name__} keeps no copy of itself")


class NetworkPolicy(Policy):
    """Acts by a network that maps encoded observations to scores `[B, A]` (forbidden acts very low) and values `[B]`; known after `prepare` or `load`."""

    space: gymnasium.spaces.Box
    network: Any

    @abstractmethod
    def encode(self, texts: Sequence[str], masks: Bools) -> Ints:
        """Encoded observations, `[B, ...]`."""


class LanguageModel(ABC):
    """A causal language model that talks and learns. Constructing one is cheap; `place` loads it.

    The network may be frozen, carry an adapter, or learn whole: `parameters` are those that learn.
    """

    context: int  # tokens it can read, known after `place`
    width: int  # D, of its hidden states, known after `place`

    @abstractmethod
    def place(self, device: torch.device) -> None:
        """Loads tokenizer and weights onto a device."""

    @abstractmethod
    def encode(self, conversation: Conversation) -> Tokens:
        """A conversation in the model's own template, with the weights of what is to be learnt."""

    @abstractmethod
    def prompt(self, messages: Sequence[Message]) -> Ints:
        """Messages in the model's own template, up to where the assistant speaks, `[T]`."""

    @abstractmethod
    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """What learns."""

    @abstractmethod
    def losses(self, examples: Sequence[Tokens]) -> Iterator[torch.Tensor]:
        """Sum over tokens of weight times negative log-likelihood, in parts that one training pass can hold.

        Each part is a differentiable scalar, to be sent backward before the next is drawn; the caller scales them.
        """

    @abstractmethod
    def score(self, examples: Sequence[Tokens], temperature: float = 1.0) -> Iterator[Scores]:
        """Log-probabilities at a temperature of the tokens that have weight, in parts that one training pass can hold.

        Each part is to be sent backward before the next is drawn. The tokens of an example are never parted.
        """

    @abstractmethod
    def likelihoods(self, groups: Sequence[Sequence[Tokens]]) -> Iterator[Likelihoods]:
        """How likely whole examples are, in the order of the groups, in parts that one training pass can hold.

        A group are the examples whose loss is one, as many in each; they are never parted. A context that examples of a part share is
        read once. Each part is to be sent backward before the next is drawn.
        """

    @abstractmethod
    def ends(self, groups: Sequence[Sequence[Tokens]]) -> Iterator[Ends]:
        """Hidden states at the last tokens of whole examples, in the order of the groups, in parts that one training pass can hold.

        A group are the examples whose loss is one, one at least; they are never parted. A context that examples of a part share is read
        once. Each part is to be sent backward before the next is drawn.
        """

    @abstractmethod
    def states(self, prompts: Sequence[Ints]) -> torch.Tensor:
        """Hidden states at the ends of prompts, `[B, D]` in float32, without gradients; each distinct prompt is read once."""

    @abstractmethod
    def read(self, examples: Sequence[Tokens]) -> Sequence[Reading]:
        """How likely each example's tokens that have weight are, without gradients."""

    @abstractmethod
    def generate(self, prompts: Sequence[Ints], sampling: Sampling, n: int = 1, seed: int | None = None) -> Sequence[Sequence[Completion]]:
        """`n` completions of each prompt; each distinct prompt is read once."""

    def unchanged(self) -> AbstractContextManager[None]:
        """For as long as the model does not learn: what it has read of prompts may be kept for those that begin alike."""
        return nullcontext()

    @abstractmethod
    def stream(self, prompt: Ints, sampling: Sampling, seed: int | None = None) -> Iterator[str]:
        """One completion as it comes, in pieces of text."""

    @abstractmethod
    def snapshot(self) -> Self:
        """The model as it is now, in memory of its own; nothing of it learns."""

    @abstractmethod
    def twin(self) -> Self:
        """A second model that begins as this one is now and learns by itself; what does not learn is held once."""

    @abstractmethod
    def base(self) -> LanguageModel:
        """The same model as it was before it learnt anything; not placed yet."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Writes what was learnt, in Hugging Face layout: an adapter, or the whole model where all of it learns."""

    @abstractmethod
    def load(self, directory: Path) -> None:
        """Restores what `save` wrote."""

    @abstractmethod
    def export(self, directory: Path) -> None:
        """Writes the whole model in Hugging Face layout, adapters folded into its weights; it learns no more after that."""


class SpeakingPolicy(Policy):
    """Acts through a language model that learns; known after `prepare` or `load`: its critic, `[B, D]` to `[B, 1]`."""

    lm: LanguageModel
    critic: torch.nn.Module

    @abstractmethod
    def say(self, observations: Observations) -> Sequence[Utterance]:
        """One act for each observation, drawn by torch's own chance."""

    @abstractmethod
    def score(self, utterances: Sequence[Utterance]) -> Iterator[Scores]:
        """What the policy as it is now thinks of what was said, in parts as `LanguageModel.score` gives them."""

    @abstractmethod
    def prompts(self, texts: Sequence[str]) -> Sequence[Ints]:
        """Observations as the language model is asked about them, `[T]` each; the critic reads their ends."""

    @abstractmethod
    def lesson(self, text: str, act: int) -> Tokens:
        """An observation answered by an act in words, to be learnt; words are chosen by torch's own chance."""

    def states(self, texts: Sequence[str]) -> torch.Tensor:
        """What the language model makes of observations, for the critic, `[B, D]`, without gradients."""
        return self.lm.states(self.prompts(texts))

    def playing(self) -> AbstractContextManager[None]:
        """See `Policy`."""
        return self.lm.unchanged()

    @torch.no_grad()
    def logprobs(self, utterances: Sequence[Utterance]) -> torch.Tensor:
        """Of every draw, `[N]`, as the policy is now."""
        parts = list(self.score(utterances))
        found = torch.cat([part.logprobs for part in parts])
        return torch.empty_like(found).scatter(0, torch.cat([part.draws for part in parts]), found)

    def speaking_by(self, lm: LanguageModel) -> Self:
        """The same policy through another language model; the critic is shared."""
        other = copy.copy(self)
        other.lm = lm
        return other

    def snapshot(self) -> Self:
        """See `Policy`; the critic is shared."""
        return self.speaking_by(self.lm.snapshot())


class Source(ABC):
    """Rows to learn from, in splits `train`, `validation` and `test`."""

    name: str  # for tables and pictures

    def warnings(self) -> Sequence[str]:
        """What was found in the data that is no error but ought to be known, each in a line."""
        return ()


class DataSource(Source):
    """Conversations, and a way to score what is answered."""

    @abstractmethod
    def conversations(self, split: str) -> Sequence[Conversation]:
        """The rows of a split; read and checked when first asked for.

        Raises:
            DataError: rows that cannot be used, all of a file at once.
        """

    def scores(self, answers: Sequence[str], asked: Sequence[Conversation]) -> Mapping[str, Estimate]:
        """How good the answers to some rows are, under names, the one that counts first; each 1 at best, with an interval over the rows."""
        return {"exact_match": bootstrap(np.array([answer.strip() == row.completion.strip() for answer, row in zip(answers, asked, strict=True)], float))}

    def worth(self, answer: str, row: Conversation) -> float:
        """How good one answer is, 1 at best, for who learns by trying: the score that counts first."""
        return next(iter(self.scores([answer], [row]).values())).mean

    def baselines(self, split: str) -> Mapping[str, Sequence[str]]:
        """What others than a language model answer to the rows of a split: named, scored like any answers."""
        return {}


class PreferenceSource(Source):
    """Pairs of conversations of which one was liked better."""

    @abstractmethod
    def preferences(self, split: str) -> Sequence[Preference]:
        """The pairs of a split; read and checked when first asked for.

        Raises:
            DataError: rows that cannot be used, all of a file at once.
        """


class RewardModel(ABC):
    """What a policy is trained on. Evaluation never uses it: that is always the domain's own reward."""

    words: bool = False  # whether it has learnt from what was said in words alone; known once it is prepared

    def prepare(self, observations: Sequence[str]) -> None:
        """Called once before training with sampled training observations: loads weights, or refuses to teach.

        Raises:
            UserError: nothing should be learnt from this reward.
        """

    def expect(self, turns: Sequence[Step]) -> None:
        """Told of turns that will be scored next, in worlds that move together: many may be read sooner than one after another.

        Nothing but what was shown, done and said is known of them yet.
        """

    @abstractmethod
    def score(self, turns: Sequence[Step]) -> Floats:
        """A reward for each turn of an episode, `[T]`; NaN where it abstains."""

    def doubts(self, turns: Sequence[Step]) -> Mapping[str, Floats]:
        """Signs that its scores of these turns may not be trusted: by name a number a turn, `[T]`, the larger the less."""
        return {}

    def metrics(self) -> Mapping[str, float]:
        """What is worth logging of the scores since this was last asked, by name."""
        return {}


class LearnedReward(RewardModel):
    """A reward that is fitted to preferences, and is kept in a directory; a score of a whole trajectory of turns is the sum of its turns' scores."""

    @abstractmethod
    def fit(self, preferences: Sequence[Preference], run: Learning) -> None:
        """Trains on pairs from nothing; `run.progress` hears of every update and may end it."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Writes safetensors and JSON."""

    @abstractmethod
    def load(self, directory: Path, device: torch.device) -> None:
        """Restores what `save` wrote."""


class Tracker(ABC):
    """Where numbers go while a run is under way."""

    @abstractmethod
    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Records metrics at an environment step."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        """Records a table, where the tracker can show one."""

    def log_checkpoint(self, directory: Path) -> None:
        """Records a finished checkpoint, where the tracker keeps such things."""

    def close(self) -> None:
        """Ends the record."""


class Progress(Protocol):
    """Called by an algorithm as it goes, with environment steps or updates; returns False to make it stop cleanly."""

    def __call__(self, steps: int, metrics: Mapping[str, float], /) -> bool:
        """Whether to go on."""
        ...


@dataclass(frozen=True)
class Learning:
    """How a run of learning is to go."""

    progress: Progress
    seed: int
    device: torch.device
    resume: Path | None = None  # where `Algorithm.save` wrote
    cost_limits: Mapping[str, float] = field(default_factory=dict)  # of expected costs an episode, for an algorithm that keeps them


class Algorithm(ABC):
    """Improves a policy in a world."""

    total_steps: int  # environment steps of a whole run; 0: it is judged as it begins
    improves: ClassVar[type] = Policy  # what kind of policy
    constrained: ClassVar[bool] = False  # whether it keeps cost limits: the run is then begun and judged within them

    @abstractmethod
    def learn(self, policy: Policy, make_world: Callable[[], World], run: Learning) -> None:
        """Trains `policy` in place until `total_steps`, or until `run.progress` says stop, which hears of the start and of every rollout, the last too."""

    def save(self, directory: Path) -> None:
        """Writes what is needed to go on exactly from here; may be called from within `run.progress`."""
        raise TypeError(f"{type(self).__name__} cannot be interrupted and resumed")

    def warnings(self) -> Sequence[str]:
        """What has looked wrong while it learnt, each in a line."""
        return ()


class Tuning(ABC):
    """Improves a language model on given data."""

    @abstractmethod
    def steps(self, examples: int) -> int:
        """Updates of a whole run over so many examples."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Writes what is needed, beside the model, to go on exactly from here; may be called from within `run.progress`."""


class ConversationTuning(Tuning):
    """Improves a language model on given conversations."""

    @abstractmethod
    def learn(self, model: LanguageModel, examples: Sequence[Tokens], run: Learning) -> None:
        """Trains `model` in place until `steps`, or until `run.progress` says stop."""


class PreferenceTuning(Tuning):
    """Improves a language model on given preferences, without a reward model."""

    @abstractmethod
    def prepare(self, model: LanguageModel, pairs: Sequence[Pair]) -> Sequence[Pair]:
        """The pairs with all that the loss wants to know of them beforehand; `model` is as it was before it learnt anything."""

    @abstractmethod
    def learn(self, model: LanguageModel, pairs: Sequence[Pair], run: Learning) -> None:
        """Trains `model` in place on prepared pairs until `steps`, or until `run.progress` says stop."""

    @abstractmethod
    def judge(self, model: LanguageModel, pairs: Sequence[Pair]) -> Liking:
        """What the model as it is makes of prepared pairs, without gradients."""


class WarmStart(ABC):
    """Improves a policy from demonstrations, before an algorithm improves it from reward."""

    @abstractmethod
    def steps(self, policy: Policy) -> int:
        """Gradient steps of the whole fit."""

    @abstractmethod
    def fit(self, policy: Policy, demonstrations: Iterator[Demonstration], tell: Callable[[int, str], None]) -> None:
        """Trains `policy` in place; `tell` hears of every step."""
