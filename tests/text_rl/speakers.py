"""A language model of some ten thousand weights that can say three words, and worlds so small that the answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from framework.algorithms.policy_gradient import PolicyGradient
from framework.algorithms.sft import SFT
from framework.algorithms.turns import play
from framework.config import CONF, build
from framework.interfaces import Domain, Learning, Oracle, Progress, SpeakingPolicy
from framework.lm.adapters import Full, Lora
from framework.lm.causal import CausalLM
from framework.policies.generative import GenerativePolicy
from framework.policies.likelihood import LikelihoodPolicy
from framework.types import Conversation, Floats, Ints, Message, Reference, Transition
from framework.worlds.environments import TextWorld

ACTS = ("left", "right", "stay")
CPU = torch.device("cpu")


class OneTurn(TextWorld):
    """`right` pays 1, the others nothing."""

    def __init__(self) -> None:
        super().__init__(ACTS, max_steps=2)

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> list[str]:
        return ["go"]

    def act(self, action: int) -> Transition:
        return Transition({"pay": float(action == 1)}, terminated=True)

    def action_mask(self) -> np.ndarray:
        return np.ones(len(ACTS), bool)

    def information_state(self) -> tuple[int, ...]:
        return (len(self.lines),)

    def get_world(self) -> dict[str, Any]:
        return {}

    def set_world(self, state: Mapping[str, Any]) -> None:
        pass


class TwoTurns(OneTurn):
    """`left` pays 0.2 at once and then nothing more; after `right`, `left` pays 1: the worth of the first act is only seen later."""

    def __init__(self) -> None:
        super().__init__()
        self.max_steps = 3

    def act(self, action: int) -> Transition:
        if len(self.lines) == 1:
            self.lines.append("abc"[action])
            return Transition({"pay": 0.2 * (action == 0)})
        return Transition({"pay": float(self.lines[1] == "b" and action == 0)}, terminated=True)


class Probe(Domain):
    """One of them as a domain; nobody asks for its oracle."""

    name, environment = "probe", "Probe"
    acts = ACTS
    cost_limits: Mapping[str, float] = {}
    phrases = Path(__file__).with_name("acts.yaml")

    def __init__(self, world: type[OneTurn]) -> None:
        self.world = world

    def make(self, split: str) -> OneTurn:
        return self.world()

    def oracle(self, split: str) -> Oracle:
        raise NotImplementedError


class Priced(Oracle):
    """Every act costs something, the best of them 3, chance 5 on average."""

    @property
    def references(self) -> Mapping[str, Reference]:
        return {"random": Reference(-5.0), "optimum": Reference(-3.0)}

    def action_values(self, states: Ints) -> Floats:
        return np.tile([-4.0, -3.0, -8.0], (len(states), 1))

    def probabilities(self, reference: str, states: Ints) -> Floats:
        raise NotImplementedError


class PricedTurn(OneTurn):
    def abandoned(self) -> float:
        return -8.0


class PricedProbe(Probe):
    def oracle(self, split: str) -> Oracle:
        return Priced()


def write_micro(directory: Path) -> Path:
    """A model with a tokenizer of bytes, in Hugging Face layout."""
    inner = Tokenizer(models.BPE({symbol: number for number, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", pad_token="<|end|>", model_max_length=64)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    end = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **shape, **end)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def fresh(
    micro: Path,
    world: type[OneTurn] = OneTurn,
    adapter: Full | Lora | None = None,
    temperature: float = 1.0,
    dtype: Literal["auto", "bfloat16"] = "auto",
) -> GenerativePolicy:
    torch.manual_seed(0)
    lm = CausalLM(str(micro), adapter=adapter or Full(), dtype=dtype)
    policy = GenerativePolicy(lm, Probe(world), max_tokens=3, temperature=temperature, evaluation_temperature=0.0, critic_width=32, system=None)
    policy.prepare((), CPU)
    return policy


def speaker(taught: Path, world: type[OneTurn] = OneTurn) -> GenerativePolicy:
    """One that knows the words already."""
    policy = fresh(taught, world)
    policy.load(taught, CPU)
    return policy


def picker(micro: Path, world: type[OneTurn] = OneTurn, normalize: Literal["none", "tokens", "words"] = "tokens") -> LikelihoodPolicy:
    """One that picks among the names of acts."""
    torch.manual_seed(0)
    policy = LikelihoodPolicy(CausalLM(str(micro), adapter=Full()), Probe(world), normalize, temperature=1.0, critic_width=32)
    policy.prepare((), CPU)
    return policy


def teach_words(policy: GenerativePolicy, updates: int = 100) -> None:
    """How to speak, not what to say: three words, equally likely, in a first turn and three in a second, so that neither teaches the other."""
    words = [("go", said) for said in "lrs"] + [(f"go\n{shown}", said) for shown in "abc" for said in "xyz"]
    lessons = [policy.lm.encode(Conversation((Message("user", text), Message("assistant", said)))) for text, said in words]
    sft = SFT(n_epochs=updates, batch_size=len(lessons), learning_rate=1e-2, warmup=0.1, weight_decay=0.0, max_grad_norm=1.0)
    sft.learn(policy.lm, lessons, Learning(lambda done, metrics: True, 0, CPU))


def algorithm(name: str, **changed: Any) -> PolicyGradient:
    """What `algo=name` builds, with settings for a world that is learned in seconds."""
    node = OmegaConf.load(CONF / "algo" / f"{name}.yaml")
    sizes = {"n_episodes": 32, "n_groups": 4, "group_size": 8, "batch_size": 64, "learning_rate": 3e-3, "total_steps": 1_000}
    kept = {key: value for key, value in node.items() if key != "defaults"}
    built: PolicyGradient = build({**kept, **{key: value for key, value in sizes.items() if key in kept}, **changed}, "algo")
    return built


def learn(policy: SpeakingPolicy, world: type[OneTurn], algo: PolicyGradient, progress: Progress = lambda *_: True, resume: Path | None = None) -> None:
    algo.learn(policy, world, Learning(progress, 0, CPU, resume))


def earned(policy: SpeakingPolicy, world: type[OneTurn], episodes: int = 64) -> float:
    """Mean return of what the policy says by chance, not of its best act: the certainty is to be learnt too."""
    return float(np.mean([episode.total for episode in play(policy, [world() for _ in range(episodes)], range(episodes))]))
