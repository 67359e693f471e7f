"""A language model that writes what it wants to do: `policy=generative`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import nlargest

import numpy as np
import torch

from framework.config import Count, NonNegative, Positive
from framework.errors import ConfigError
from framework.interfaces import Domain, LanguageModel
from framework.lm.actor_critic import SpeakingActorCritic
from framework.types import Bools, Completion, Conversation, Ints, Message, Observations, Reply, Sampling, Scores, Tokens, Utterance
from framework.worlds.free_text import speech_of

_MEASURED = 32  # observations whose tokens are counted before anything is learnt


class GenerativePolicy(SpeakingActorCritic):
    """Replies to an observation, as to a user's message, and does what the reply is understood to mean.

    A reply in which the domain's speech finds no act, or one that is forbidden now, is the act -1: the turn is lost and costs `format`.

    Args:
        lm: writes.
        domain: its speech, mostly a phrasebook, understands.
        max_tokens: of a reply.
        temperature: at which replies are drawn, and their log-probabilities taken, while it learns.
        evaluation_temperature: at which they are drawn when it is judged. At 0 what is likeliest is written, and a reply that is not
            understood is then given for ever, since it changes nothing that is shown.
        critic_width: of the critic's layer.
        system: what the model is told before every observation, as which acts there are; None: nothing. A prompt of data that has a system message
            keeps its own.

    Raises:
        ValueError: nothing said in the world is understood.
    """

    def __init__(
        self,
        lm: LanguageModel,
        domain: Domain,
        max_tokens: Count,
        temperature: Positive,
        evaluation_temperature: NonNegative,
        critic_width: Count,
        system: str | None,
    ) -> None:
        super().__init__(lm, critic_width)
        self.speech = speech_of(domain)
        self.sampling, self.judged = Sampling(max_tokens, temperature), Sampling(max_tokens, evaluation_temperature)
        self.told = () if system is None else (Message("system", system),)

    def prepare(self, observations: Sequence[str], device: torch.device) -> None:
        """Loads the language model and makes a fresh critic.

        Raises:
            ConfigError: an observation leaves no room for a reply.
        """
        super().prepare(observations, device)
        long = nlargest(_MEASURED, dict.fromkeys(observations), key=len)  # by characters; all the others are measured when they are shown
        longest, most = max(map(len, self.prompts(long)), default=0), self.sampling.max_tokens
        if longest + most > self.lm.context:
            told = f"{longest} tokens are shown and {most} more may be said, but the model can read {self.lm.context} in all"
            raise ConfigError("policy.max_tokens", f"{told}; lower it, show less, or take a model that reads more")

    def act(self, observations: Observations, deterministic: bool = False) -> Ints:
        """See `Policy`; -1 where nothing allowed is understood."""
        return np.array([reply.act for reply in self.reply(observations, deterministic)])

    def reply(self, observations: Observations, deterministic: bool = False) -> Sequence[Reply]:
        """See `Policy`. The best that it can do is what it says at `evaluation_temperature`."""
        replies = self.lm.generate(self.prompts(observations.texts), self.judged if deterministic else self.sampling)
        return [Reply(self._meant(reply.text, mask), reply.text) for (reply,), mask in zip(replies, observations.masks, strict=True)]

    def say(self, observations: Observations) -> Sequence[Utterance]:
        """See `SpeakingPolicy`."""
        prompts = self.prompts(observations.texts)
        rows = zip(observations.texts, observations.masks, prompts, self.lm.generate(prompts, self.sampling), strict=True)
        return [self._utterance(text, mask, prompt, reply) for text, mask, prompt, (reply,) in rows]

    def score(self, utterances: Sequence[Utterance]) -> Iterator[Scores]:
        """See `SpeakingPolicy`."""
        return self.lm.score([utterance.tokens for utterance in utterances], self.sampling.temperature)

    def prompts(self, texts: Sequence[str]) -> Sequence[Ints]:
        """See `SpeakingPolicy`."""
        known = {text: self.lm.prompt(self._asked(text)) for text in dict.fromkeys(texts)}  # the members of a group are asked the same
        return [known[text] for text in texts]

    def lesson(self, text: str, act: int) -> Tokens:
        """See `SpeakingPolicy`."""
        said = self.speech.answer(text, act, np.random.default_rng(int(torch.randint(2**31, ()))))
        return self.lm.encode(Conversation((*self._asked(text), Message("assistant", said))))

    def _asked(self, text: str) -> Sequence[Message]:
        messages = self.speech.messages(text)
        return messages if messages[0].role == "system" else (*self.told, *messages)

    def _utterance(self, text: str, mask: Bools, prompt: Ints, reply: Completion) -> Utterance:
        tokens = Tokens(np.concatenate([prompt, reply.ids]), np.repeat([0.0, 1.0], [len(prompt), len(reply.ids)]))
        return Utterance(text, mask, self._meant(reply.text, mask), reply.text, tokens, reply.logprobs, reply.finish_reason, reply.state)

    def _meant(self, reply: str, mask: Bools) -> int:
        act = self.speech.understand(reply)
        return act if act is not None and mask[act] else -1
