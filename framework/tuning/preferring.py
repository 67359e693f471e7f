"""Which of two completions does a language model like better, by how much, and how far has it gone from what it was? On held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
import torch

from framework.datasets.checks import Overlong, fit_context
from framework.errors import ConfigError, DataError
from framework.interfaces import LanguageModel, PreferenceTuning
from framework.statistics import bootstrap
from framework.types import Completion, Conversation, Estimate, Floats, Liking, Message, Pair, Preference, Sampling, Tokens


@dataclass(frozen=True)
class Verdict:
    """One model on the pairs of a split, and on their prompts."""

    loss: Estimate  # a pair
    scores: Mapping[str, Estimate]
    said: Sequence[str]  # [prompts]


@dataclass(frozen=True)
class Bench:
    """The pairs of a split, and what it takes to judge a model on them."""

    tuning: PreferenceTuning
    reference: LanguageModel  # the model as it was
    pairs: Sequence[Pair]  # prepared
    prompts: Sequence[Preference]  # of these, what is said to their prompts
    max_tokens: int
    seed: int

    def judge(self, lm: LanguageModel) -> Verdict:
        """Loss and preferences on the pairs; what it says to the prompts, and how far that is from what the reference would."""
        liking = self.tuning.judge(lm, self.pairs)
        drawn, said = draw(lm, self.prompts, self.max_tokens, self.seed)
        return Verdict(bootstrap(liking.losses), {**liking_scores(liking, self.pairs), "kl": divergence(lm, self.reference, drawn)}, said)


def encode_pairs(lm: LanguageModel, preferences: Sequence[Preference], overlong: Overlong) -> tuple[list[Pair], list[str]]:
    """Pairs as a model reads them, what both sides begin with as context, and warnings about those that are too long for it.

    Args:
        lm: placed.
        preferences: to read.
        overlong: see `fit_context`; a pair is as long as its longer side.

    Raises:
        DataError: too many are too long.
    """
    told = [_told_apart(preference) for preference in preferences]
    pairs = [Pair(lm.encode(each.chosen), lm.encode(each.rejected), each.label) for each in told]
    longer = [max((pair.chosen, pair.rejected), key=lambda side: len(side.ids)) for pair in pairs]
    fitting, warnings = fit_context(longer, [each.chosen for each in told], lm.context, overlong)
    if overlong == "drop":
        kept = {id(example) for example in fitting}
        return [pair for pair, example in zip(pairs, longer, strict=True) if id(example) in kept], warnings
    cut = lambda side: Tokens(side.ids[: lm.context], side.weights[: lm.context])  # noqa: E731
    return [replace(pair, chosen=cut(pair.chosen), rejected=cut(pair.rejected)) for pair in pairs], warnings


def with_prompts(preferences: Sequence[Preference], most: int) -> list[Preference]:
    """The first preferences with prompts of their own, `most` at the most."""
    first = {tuple((message.role, message.content) for message in common_prompt(each)): each for each in reversed(preferences)}
    return list(reversed(first.values()))[:most]


def common_prompt(preference: Preference) -> Sequence[Message]:
    """What both sides answer."""
    return preference.chosen.messages[: _parting(preference)]


def answers_of(preference: Preference) -> tuple[str, str]:
    """What follows in both, as text."""
    chosen, rejected = (side.messages[_parting(preference) :] for side in (preference.chosen, preference.rejected))
    return "\n".join(message.content for message in chosen), "\n".join(message.content for message in rejected)


def liking_scores(liking: Liking, pairs: Sequence[Pair]) -> dict[str, Estimate]:
    """How often the side that was liked is rewarded more than the other, by how much, and how often it is likelier; a tie is half a hit."""
    sign = np.sign([2 * pair.label - 1 for pair in pairs])
    margins, likelier = (sign * (each[:, 0] - each[:, 1]) for each in (liking.rewards, liking.logprobs))
    found: dict[str, Floats] = {"reward_accuracy": np.heaviside(margins, 0.5), "reward_margin": margins, "likelier": np.heaviside(likelier, 0.5)}
    return {name: bootstrap(values) for name, values in found.items()}


def draw(lm: LanguageModel, preferences: Sequence[Preference], max_tokens: int, seed: int) -> tuple[list[Tokens], list[str]]:
    """A completion of each prompt at temperature 1: as an example whose completion has weight, and as text.

    Raises:
        ConfigError: a prompt leaves no room for it.
    """
    prompts = [lm.prompt(common_prompt(each)) for each in preferences]
    if (longest := max(map(len, prompts))) + max_tokens > lm.context:
        raise ConfigError("experiment.max_tokens", f"{max_tokens} more than a prompt's {longest} are beyond the model's {lm.context} tokens; give fewer")
    said: list[Completion] = [completions[0] for completions in lm.generate(prompts, Sampling(max_tokens), seed=seed)]
    examples = [
        Tokens(np.concatenate([prompt, each.ids]), np.repeat([0.0, 1.0], [len(prompt), len(each.ids)])) for prompt, each in zip(prompts, said, strict=True)
    ]
    return examples, [each.text.strip() for each in said]


@torch.no_grad()
def divergence(lm: LanguageModel, reference: LanguageModel, drawn: Sequence[Tokens]) -> Estimate:
    """KL(π ‖ π_ref) in nats a completion, from completions that `lm` drew: the mean of log π(y) − log π_ref(y), which has no bias."""
    own, other = (torch.cat([part.logprobs for part in model.likelihoods([(each,) for each in drawn])])[:, 0] for model in (lm, reference))
    return bootstrap((own - other).double().cpu().numpy())


def _told_apart(preference: Preference) -> Preference:
    """What both sides begin with is context, whoever said it."""

    def side(said: Conversation) -> Conversation:
        context = [replace(message, weight=0.0) for message in said.messages[: _parting(preference)]]
        return replace(said, messages=[*context, *said.messages[len(context) :]])

    return replace(preference, chosen=side(preference.chosen), rejected=side(preference.rejected))


def _parting(preference: Preference) -> int:
    """How many messages both sides begin with, up to the first thing that the assistant says in only one of them."""
    both = zip(preference.chosen.messages[:-1], preference.rejected.messages[:-1], strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: (pair[0].role, pair[0].content) == (pair[1].role, pair[1].content), both))
    parting = next((place for place in range(shared, 0, -1) if preference.chosen.messages[place].role == "assistant"), None)
    if parting is None:
        raise DataError(f"{preference.chosen.origin}: chosen and rejected do not begin with the same prompt; give both the same messages before they differ")
    return parting
