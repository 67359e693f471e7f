"""What the language model is given, what it learns from, and what comes back when it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from micro import write_micro
from peft import PeftModel
from scipy.stats import chisquare
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from framework.errors import ConfigError
from framework.lm.adapters import Full, Lora
from framework.lm.causal import CausalLM
from framework.types import Conversation, Message, Sampling, Tokens

CPU = torch.device("cpu")
TALK = Conversation([Message("system", "Be brief."), Message("user", "Two?"), Message("assistant", "2"), Message("user", "Ten?"), Message("assistant", "10 é")])


def placed(path: Path, adapter: Lora | Full | None = None, dtype: str = "float32") -> CausalLM:
    lm = CausalLM(str(path), dtype, adapter=adapter)  # type: ignore[arg-type]
    lm.place(CPU)
    return lm


def text(lm: CausalLM, ids: np.ndarray) -> str:
    return str(lm.tokenizer.decode(ids))


def test_learns_what_the_assistant_says_and_how_it_ends(micro: Path) -> None:
    lm = placed(micro)
    tokens = lm.encode(TALK)
    assert text(lm, tokens.ids) == "<|system|>Be brief.<|end|><|user|>Two?<|end|><|assistant|>2<|end|><|user|>Ten?<|end|><|assistant|>10 é<|end|>"
    assert text(lm, tokens.ids[tokens.weights > 0]) == "2<|end|>10 é<|end|>"


def test_a_message_without_weight_is_context(micro: Path) -> None:
    lm = placed(micro)
    first, *rest = TALK.messages[2:]
    tokens = lm.encode(Conversation([*TALK.messages[:2], Message("assistant", first.content, weight=0.0), *rest]))
    assert text(lm, tokens.ids[tokens.weights > 0]) == "10 é<|end|>"


def test_what_is_learnt_follows_the_tokens_that_generation_begins_from(micro: Path) -> None:
    lm = placed(micro)
    tokens, prompt = lm.encode(TALK), lm.prompt(TALK.prompt)
    assert tokens.ids[: len(prompt)].tolist() == prompt.tolist() and tokens.weights[len(prompt)] == 1


@pytest.mark.parametrize("adapter", [Full(), Lora()], ids=["full", "lora"])
def test_what_it_read_is_kept_for_as_long_as_it_does_not_change(adapter: Full | Lora, micro: Path) -> None:
    lm, read = placed(micro, adapter), list[int]()
    asked = [lm.prompt([Message("user", "one two three four five six" + more)]) for more in ("", "\nseven")]
    lm.model.get_input_embeddings().register_forward_pre_hook(lambda module, given: read.append(given[0].shape[1]))

    def say(prompt: np.ndarray) -> tuple[list[int], int]:
        read.clear()
        ((completion,),) = lm.generate([prompt], Sampling(3, temperature=0.0))
        return completion.ids.tolist(), read[0]

    for _ in range(2):
        anew = [say(prompt) for prompt in asked]
        assert [tokens for _, tokens in anew] == [len(prompt) for prompt in asked]
        with lm.unchanged():
            first, second = (say(prompt) for prompt in asked)
        assert (first, second[0]) == (anew[0], anew[1][0]) and second[1] < len(asked[1]) / 2
        with torch.no_grad():
            for parameter in lm.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    assert say(asked[1])[1] == len(asked[1])


def test_models_without_a_template_talk_plainly_and_keep_it(tmp_path: Path) -> None:
    lm = placed(write_micro(tmp_path / "base", template=None))
    assert text(lm, lm.encode(TALK).ids) == "Be brief.\nTwo?\n2<|end|>Ten?\n10 é<|end|>"
    lm.export(tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


def plain_loss(lm: CausalLM, examples: list[Tokens]) -> torch.Tensor:
    """One example after the other through the unchanged model."""
    total = torch.zeros(())
    for example in examples:
        logits = lm.model(input_ids=torch.as_tensor(example.ids)[None]).logits[0, :-1]
        losses = cross_entropy(logits, torch.as_tensor(example.ids[1:]), reduction="none")
        total = total + losses @ torch.as_tensor(example.weights[1:], dtype=torch.float32)
    return total


def conversations(lm: CausalLM) -> list[Tokens]:
    said = ["no", "yes, of course", "perhaps", "it is hard to say", "never"]
    return [lm.encode(Conversation([Message("user", f"Question {len(answer)}?"), Message("assistant", answer)])) for answer in said] + [lm.encode(TALK)]


@pytest.mark.parametrize("pass_tokens", [8_192, 64])
def test_loss_and_gradient_are_the_plain_ones_however_passes_are_cut(micro: Path, pass_tokens: int) -> None:
    lm = placed(micro, Full())
    lm.pass_tokens = pass_tokens
    examples = conversations(lm)
    ours = 0.0
    for part in lm.losses(examples):
        part.backward()
        ours += part.item()
    found = [parameter.grad.clone() for parameter in lm.parameters()]  # type: ignore[union-attr]
    lm.model.zero_grad()
    plain = plain_loss(lm, examples)
    plain.backward()
    assert ours == pytest.approx(plain.item(), rel=1e-5)
    for ours_, theirs in zip(found, lm.parameters(), strict=True):
        torch.testing.assert_close(ours_, theirs.grad, rtol=1e-3, atol=1e-4)


def test_reading_says_how_likely_and_whether_likeliest(micro: Path) -> None:
    lm = placed(micro)
    examples = conversations(lm)
    for example, reading in zip(examples, lm.read(examples), strict=True):
        logits = lm.model(input_ids=torch.as_tensor(example.ids)[None]).logits[0, :-1].detach()
        weighted = np.flatnonzero(example.weights) - 1
        targets = torch.as_tensor(example.ids[weighted + 1])
        np.testing.assert_allclose(reading.nll, cross_entropy(logits[weighted], targets, reduction="none"), rtol=1e-4)
        assert reading.correct.tolist() == (logits[weighted].argmax(-1) == targets).tolist()


def moved(lm: CausalLM) -> CausalLM:
    """The same, its learning weights shifted."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return lm


def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=torch.arange(20)[None]).logits.detach()  # type: ignore[no-any-return]


def test_lora_begins_as_the_base_and_ends_merged_the_same(micro: Path, tmp_path: Path) -> None:
    base, lm = placed(micro), placed(micro, Lora(4, 8))
    torch.testing.assert_close(logits(lm.model), logits(base.model))
    assert lm.parameters() and all("lora_" in name for name, weight in lm.model.named_parameters() if weight.requires_grad)
    tuned = logits(moved(lm).model)
    assert not torch.allclose(tuned, logits(base.model), atol=1e-2)
    lm.save(tmp_path / "adapter")
    torch.testing.assert_close(logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(micro), tmp_path / "adapter")), tuned)
    again = placed(micro, Lora(4, 8))
    again.load(tmp_path / "adapter")
    torch.testing.assert_close(logits(again.model), tuned)
    lm.export(tmp_path / "whole")
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "whole")), tuned, atol=1e-4, rtol=1e-4)


def test_an_adapter_is_a_place_to_begin_from(micro: Path, tmp_path: Path) -> None:
    lm = moved(placed(micro, Lora(4, 8)))
    lm.save(tmp_path / "first")
    tuned = logits(lm.model)
    onward = placed(tmp_path / "first", Lora(4, 8))
    torch.testing.assert_close(logits(onward.model), tuned)
    assert onward.parameters() and all("lora_" in name for name, weight in onward.model.named_parameters() if weight.requires_grad)
    for adapter in (Full(), None):
        folded = placed(tmp_path / "first", adapter)
        torch.testing.assert_close(logits(folded.model), tuned, atol=1e-4, rtol=1e-4)
        assert len(folded.parameters()) == (len(placed(micro, Full()).parameters()) if adapter else 0)
    further = logits(moved(onward).model)
    onward.save(tmp_path / "second")  # all that was ever learnt, for the model that it belongs to
    torch.testing.assert_close(logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(micro), tmp_path / "second")), further)
    with pytest.raises(ConfigError, match=r"lm.path: .*rank 4 and alpha 8.*give adapter.rank=4 adapter.alpha=8"):
        placed(tmp_path / "first", Lora(8, 8))


def test_a_whole_model_comes_back(micro: Path, tmp_path: Path) -> None:
    lm = moved(placed(micro, Full()))
    lm.save(tmp_path)
    again = placed(micro, Full())
    again.load(tmp_path)
    torch.testing.assert_close(logits(again.model), logits(lm.model))
    assert all(parameter.requires_grad for parameter in again.parameters()) and len(again.parameters()) == len(lm.parameters())
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(lm.model))


def test_the_base_is_the_model_before_it_learnt(micro: Path) -> None:
    base = moved(placed(micro, Full())).base()
    base.place(CPU)
    torch.testing.assert_close(logits(base.model), logits(placed(micro).model))


def test_streaming_says_what_generating_says(micro: Path) -> None:
    lm = placed(micro)
    prompt, sampling = lm.prompt(TALK.prompt), Sampling(12, temperature=1.0)
    assert "".join(lm.stream(prompt, sampling, seed=3)) == lm.generate([prompt], sampling, seed=3)[0][0].text


ANSWERS = ("yes", "yes, and soon", "yes, but not soon", "no", "nobody knows")  # some begin as others do, and one is another's beginning


def among(lm: CausalLM, prompt: np.ndarray, temperature: float) -> dict[str, tuple[list[int], torch.Tensor]]:
    """Each answer's tokens, and the log-probability of each of them among those that lead on to an answer, by plain forward passes."""
    spoken = {answer: lm.encode(Conversation([*TALK.prompt, Message("assistant", answer)])) for answer in ANSWERS}
    tokens = {answer: found.ids[len(prompt) :][found.weights[len(prompt) :] > 0].tolist() for answer, found in spoken.items()}
    found = {}
    for answer, ids in tokens.items():
        with torch.no_grad():
            at = lm.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1] / temperature
        chosen = []
        for place, token in enumerate(ids):
            options = sorted({others[place] for others in tokens.values() if others[:place] == ids[:place]})
            chosen.append(at[place][options].log_softmax(-1)[options.index(token)])
        found[answer] = ids, torch.stack(chosen).double()
    return found


def test_only_allowed_texts_are_said_as_often_as_they_are_likely_among_themselves() -> None:
    lm = placed(Path("bundled"))
    prompt, draws, temperature = lm.prompt(TALK.prompt), 600, 1.5
    expected = among(lm, prompt, temperature)
    likely = np.exp([logprobs.sum().item() for _, logprobs in expected.values()])
    assert likely.sum() == pytest.approx(1, abs=1e-5) and (likely * draws > 5).sum() > 1, "there is something to draw"
    sampling = Sampling(20, temperature, allowed=ANSWERS)
    first, again = lm.generate([prompt, lm.prompt(TALK.prompt[:2])], sampling, draws, seed=0)
    for completion in first:
        ids, logprobs = expected[completion.text]
        assert completion.ids.tolist() == ids and completion.finish_reason == "stop"
        assert completion.logprobs == pytest.approx(logprobs.numpy(), abs=1e-4)
    counts = np.array([sum(completion.text == answer for completion in first) for answer in ANSWERS])
    often = likely * draws > 5
    parts = [np.append(part[often], part[~often].sum()) for part in (counts, likely / likely.sum() * draws)]
    assert counts.sum() == draws and chisquare(*(part[parts[1] > 0] for part in parts)).pvalue > 1e-3
    assert {completion.text for completion in again} <= set(ANSWERS)
    assert "".join(lm.stream(prompt, sampling, seed=4)) == lm.generate([prompt], sampling, seed=4)[0][0].text in ANSWERS


def test_without_chance_the_likeliest_token_that_leads_on_is_taken() -> None:
    lm = placed(Path("bundled"))
    prompt = lm.prompt(TALK.prompt)
    ((found,),) = lm.generate([prompt], Sampling(20, 0.0, allowed=ANSWERS))
    left, expected = list(ANSWERS), among(lm, prompt, 1.0)
    for place in range(len(found.ids)):
        best = max(left, key=lambda answer: expected[answer][1][place].item())
        left = [answer for answer in left if expected[answer][0][: place + 1] == expected[best][0][: place + 1]]
    assert left == [found.text] and found.logprobs == pytest.approx(expected[found.text][1].numpy(), abs=1e-4)
    ((free,),) = lm.generate([prompt], Sampling(20, 0.0))
    assert free.text not in ANSWERS, "it would have said something else"


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"allowed": ("yes", "")}, "sampling.allowed: must be texts that are not empty"),
        ({"allowed": ("yes. Sure",), "stop": (".",)}, "sampling.allowed: must be .* hold no stop"),
        ({"allowed": ("yes", "<|end|>no")}, r"sampling.allowed: .* cannot say '<\|end\|>no': in its tokens it is 'no'"),
        ({"allowed": ("yes", "no, by no means")}, r"sampling.max_tokens: 'no, by no means' takes 16 tokens with its end, and 12 may be said"),
    ],
)
def test_texts_that_cannot_be_said_are_told(how: dict[str, Any], told: str, micro: Path) -> None:
    lm = placed(micro)
    with pytest.raises(ConfigError, match=told):
        lm.generate([lm.prompt(TALK.prompt)], Sampling(12, **how))


def test_a_model_without_a_template_says_what_is_allowed_too(tmp_path: Path) -> None:
    lm = placed(write_micro(tmp_path, template=None))
    assert {said.text for (said,) in lm.generate([lm.prompt(TALK.prompt)] * 20, Sampling(8, allowed=("red", "redder")))} == {"red", "redder"}


def test_nothing_at_the_path_is_told() -> None:
    with pytest.raises(ConfigError, match="lm.path: '/no/such/model' holds no causal language model"):
        placed(Path("/no/such/model"))
