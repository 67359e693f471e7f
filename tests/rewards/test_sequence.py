"""A reward read by a whole language model: what it learns, how it is kept, and that plain transformers gives the same scores."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from preferred import learning, preferences
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).parents[1] / "tuning"))
from micro import write_micro

from framework.checkpoint import save_checkpoint
from framework.config import load_domain
from framework.errors import CheckpointError, ConfigError, TrainingError
from framework.interfaces import Learning
from framework.lm.adapters import Full, Lora
from framework.lm.causal import CausalLM
from framework.preferences.fitted_reward import Fitting
from framework.preferences.trajectories import turns_of
from framework.rewards.sequence import Pairs, SequenceReward, backward, ends_of, fitting_in, turn_tokens
from framework.types import Conversation, Message, Preference, Step, Tokens
from framework.worlds.rewarded import RewardedWorld

FITTING = Fitting(epochs=1, batch_size=16, learning_rate=3e-3, weight_decay=0.0, centring=0.01, margin=0.0)
ADAPTERS = {"full": Full, "lora": Lora, "frozen": lambda: None}
TURNS = [("it rains\nthere is wind", "sail"), ("it rains\nthere is wind", "stay"), ("", ""), ("x" * 300, "stay")]
PAIRS = preferences(32, seed=1)


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_micro(tmp_path_factory.mktemp("micro"))


def made(micro: Path, adapter: str = "full", fitting: Fitting = FITTING, pass_tokens: int = 8_192) -> SequenceReward:
    return SequenceReward(None, fitting, CausalLM(str(micro), "float32", pass_tokens, ADAPTERS[adapter]()))


def scores(reward: SequenceReward) -> Any:
    return reward.score([Step(*turn, {}, {}) for turn in TURNS])


def begun(reward: SequenceReward) -> tuple[CausalLM, Any]:
    """A reward with a head that is not nought."""
    reward.begin(PAIRS[:1], learning())
    lm, head = reward._fitted()
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    return lm, head


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_plain_transformers_gives_the_scores_of_what_was_kept(adapter: str, micro: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    reward = made(micro, adapter)
    reward.fit(PAIRS, learning())
    given, lm = scores(reward), reward._fitted()[0]
    assert np.ptp(given) > 1e-4
    save_checkpoint(tmp_path / "run" / "checkpoint", reward.save, {})
    kept = tmp_path / "run" / "checkpoint"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(kept), AutoTokenizer.from_pretrained(kept)
    ids = [fitting_in(lm, turn_tokens(lm, turn)).ids for turn in TURNS]
    with torch.no_grad():
        alone = torch.cat([model(input_ids=torch.as_tensor(each)[None]).logits for each in ids])
        together = model(**tokenizer.pad({"input_ids": [each.tolist() for each in ids]}, return_tensors="pt")).logits
    assert alone.squeeze(1).tolist() == pytest.approx(given, abs=1e-5)
    assert together.squeeze(1).tolist() == pytest.approx(given, abs=1e-4)
    text = tokenizer.apply_chat_template([{"role": "user", "content": TURNS[0][0]}, {"role": "assistant", "content": TURNS[0][1]}], tokenize=False)
    with torch.no_grad():
        assert model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits.item() == pytest.approx(given[0], abs=1e-5)
    other = SequenceReward(str(tmp_path / "run"), FITTING)
    other.prepare(["anything"])
    assert scores(other) == pytest.approx(given, abs=1e-5)
    assert other.score([]).shape == (0,)
    again = tmp_path / "again"
    again.mkdir()
    other.save(again)  # what was loaded can be kept again
    assert load_file(again / "model.safetensors").keys() == load_file(kept / "model.safetensors").keys()


def test_distances_are_mahalanobis_and_kept_with_the_weights(micro: Path, tmp_path: Path) -> None:
    reward = made(micro, "lora")
    reward.fit(PAIRS, learning())
    turns = list(dict.fromkeys(turn for pair in PAIRS for side in (pair.chosen, pair.rejected) for turn in turns_of(side)))
    lm, _ = reward._fitted()
    with torch.no_grad():
        states = torch.cat([part.states for part in lm.ends([[turn_tokens(lm, turn)] for turn in turns])]).double().numpy()
    away, covariance = states - states.mean(0), np.cov(states.T, bias=True)
    precision = np.linalg.inv(covariance + 1e-3 * covariance.diagonal().mean() * np.eye(len(covariance)))
    expected = np.einsum("tw,wv,tv->t", away, precision, away) / states.shape[1]
    steps = [Step(*turn, {}, {}) for turn in turns]
    np.testing.assert_allclose(reward.doubts(steps)["distance"], expected, rtol=0.02, atol=0.01)
    strange = Step("x" * 30, "9", {}, {})
    assert reward.doubts([strange])["distance"][0] > 3 * expected.mean()
    reward.save(tmp_path)
    again = SequenceReward(None, FITTING)
    again.load(tmp_path, torch.device("cpu"))
    np.testing.assert_allclose(again.doubts([strange, *steps])["distance"], reward.doubts([strange, *steps])["distance"], rtol=0.02)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_to_keep_it_does_not_change_what_is_fitted(adapter: str, micro: Path, tmp_path: Path) -> None:
    found = []
    for saved in (False, True):
        reward = made(micro, adapter, replace(FITTING, epochs=2))

        def progress(steps: int, _: Any, saved: bool = saved, reward: SequenceReward = reward) -> bool:
            if saved:
                reward.save(tmp_path)
            return True

        reward.fit(PAIRS, Learning(progress, 0, torch.device("cpu")))
        found.append(scores(reward).tolist())
    assert found[0] == found[1]


def pairs_of(lm: CausalLM) -> Pairs:
    """Three, with a turn on both sides, a turn twice, and soft labels."""
    turns = [[("a", "x"), ("a", "y"), ("bc", "z")], [("a", "y"), ("dd", "w")], [("bc", "v")]]
    counts = [[[1, 0, 2], [1, 1, 0]], [[1, 0], [0, 1]], [[2], [1]]]
    tokens = [[turn_tokens(lm, turn) for turn in each] for each in turns]
    return Pairs(tokens, [torch.tensor(each, dtype=torch.float32) for each in counts], torch.tensor([1.0, 0.25, 0.5]), torch.tensor([0.0, 0.5, 0.2]))


def gradients(reward: SequenceReward, pass_tokens: int) -> tuple[float, list[torch.Tensor]]:
    lm, head = reward._fitted()
    lm.pass_tokens, pairs = pass_tokens, pairs_of(lm)
    parameters = [*lm.parameters(), head.weight]
    for parameter in parameters:
        parameter.grad = None
    loss = backward(ends_of(lm, pairs), head, pairs, np.arange(3), 0.05)
    return loss, [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone() for parameter in parameters]


def test_the_loss_by_hand_and_its_gradient_by_finite_differences(micro: Path) -> None:
    reward = made(micro)
    lm, head = begun(reward)
    lm.model.double()  # so that small steps are seen
    lm.model.get_input_embeddings().padding_idx = None  # torch gives the padding's embedding no gradient, and here the end of a turn is padding
    loss, found = gradients(reward, 8_192)
    pairs = pairs_of(lm)
    by_hand = 0.0
    for turns, counts, label, margin in zip(pairs.turns, pairs.counts, pairs.labels.tolist(), pairs.margins.tolist(), strict=True):
        chosen, rejected = (counts @ torch.stack([alone(lm, head, each) for each in turns])).tolist()
        ahead = chosen - rejected - margin
        by_hand += label * np.log1p(np.exp(-ahead)) + (1 - label) * np.log1p(np.exp(ahead)) + 0.05 * (chosen + rejected) ** 2
    assert loss == pytest.approx(by_hand / 3, rel=1e-4)
    torch.manual_seed(0)
    parameters = [*lm.parameters(), head.weight]
    directions = [torch.randn_like(parameter) for parameter in parameters]
    values = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += step * direction
            values.append(valued(lm, head))
    expected = (values[0] - values[1]) / 2e-5
    assert sum(float((gradient * direction).sum()) for gradient, direction in zip(found, directions, strict=True)) == pytest.approx(expected, rel=0.02)


def alone(lm: CausalLM, head: Any, example: Tokens) -> torch.Tensor:
    """The score of one turn through the unchanged network."""
    states = lm.model.model(input_ids=torch.as_tensor(example.ids)[None]).last_hidden_state[0, -1]
    score: torch.Tensor = head(states.float())[0]
    return score


def valued(lm: CausalLM, head: Any) -> float:
    """The loss alone."""
    with torch.enable_grad():
        return backward(ends_of(lm, pairs_of(lm)), head, pairs_of(lm), np.arange(3), 0.05)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_how_a_batch_falls_into_parts_changes_nothing(adapter: str, micro: Path) -> None:
    reward = made(micro, adapter)
    begun(reward)
    loss, found = gradients(reward, 8_192)
    for pass_tokens in (40, 1):
        other, parted = gradients(reward, pass_tokens)
        assert other == pytest.approx(loss, rel=1e-5)
        for whole, split in zip(found, parted, strict=True):
            torch.testing.assert_close(split, whole, rtol=1e-3, atol=1e-5)


def simple(count: int, seed: int) -> list[Preference]:
    """Whoever says please is liked better."""
    rng, made = np.random.default_rng(seed), list[Preference]()
    for _ in range(count):
        asked = " ".join(rng.choice(["tea", "bread", "salt", "milk"], size=2))
        words = rng.choice(["bring it", "hand it over", "I want it", "give"], size=2)
        sides = [Conversation([Message("user", asked), Message("assistant", said)]) for said in (f"{words[0]} please", str(words[1]))]
        made.append(Preference(*sides))
    return made


def test_a_simple_preference_is_learnt_from_nothing(micro: Path) -> None:
    reward = made(micro, fitting=replace(FITTING, epochs=2))
    reward.fit(simple(128, 0), learning())
    held_out = simple(60, 1)
    ahead = [
        np.diff(reward.score([Step(pair.rejected.messages[0].content, side.completion, {}, {}) for side in (pair.rejected, pair.chosen)]))[0]
        for pair in held_out
    ]
    assert np.mean(np.array(ahead) > 0) > 0.95


def test_turns_met_before_are_not_read_again_and_seeds_repeat(micro: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        reward = made(micro)
        torch.rand(1)
        reward.fit(PAIRS, learning(seed))
        found.append(scores(reward).tolist())
    assert found[0] == found[1] != found[2]
    read, lm = list[int](), reward._fitted()[0]
    lm.model.get_input_embeddings().register_forward_hook(lambda _, ids, __: read.append(ids[0].numel()))
    assert scores(reward).tolist() == found[2] and not read


def test_turns_too_long_to_read_are_counted(micro: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm, tale = CausalLM(str(micro), "float32"), "y" * 250  # 250 tokens, and a few that mark who speaks
    lm.place(torch.device("cpu"))
    whole = turn_tokens(lm, (tale, "stay"))
    kept = fitting_in(lm, whole)
    assert len(whole.ids) > lm.context == len(kept.ids) and kept.ids.tolist() == whole.ids[-lm.context :].tolist() and kept.weights[0] == 0
    talks = [Conversation([Message("user", said), Message("assistant", act)]) for said in (tale, "short") for act in ("stay", "sail")]
    made(micro).begin([Preference(*talks[:2]), Preference(*talks[2:]), *PAIRS[:3]], learning())
    assert "2 turns are longer than the 256 tokens that the model can read" in capsys.readouterr().out


def test_what_cannot_be_used_is_refused_by_name(micro: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reward\.path: must be given"):
        SequenceReward(None, FITTING).prepare([])
    with pytest.raises(ConfigError, match="lm: a reward is fitted to a language model"):
        SequenceReward(None, FITTING).fit(PAIRS, learning())
    with pytest.raises(ConfigError, match="not fitted"):
        scores(made(micro))
    with pytest.raises(TrainingError, match="learning_rate"):
        made(micro, fitting=replace(FITTING, learning_rate=1e30, epochs=3)).fit(PAIRS, learning())
    with pytest.raises(CheckpointError, match="holds no fitted reward"):
        made(micro).load(tmp_path, torch.device("cpu"))
    (tmp_path / "reward.json").write_text(json.dumps({"members": 1}))
    with pytest.raises(CheckpointError, match="a reward of another kind"):
        made(micro).load(tmp_path, torch.device("cpu"))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda kept: (kept / "model.safetensors").write_bytes(b"{}"), "no sequence classifier that can be read"),
        (lambda kept: (kept / "model.safetensors").unlink(), "no sequence classifier that can be read"),
        (lambda kept: (kept / "config.json").write_text("{}"), "no sequence classifier that can be read"),
        (lambda kept: changed(kept, num_hidden_layers=3), "weights do not fit: model.layers.2"),
        (lambda kept: changed(kept, id2label={"0": "a", "1": "b"}), "no sequence classifier that can be read"),
    ],
)
def test_a_damaged_reward_is_refused_by_name(damage: Any, told: str, micro: Path, tmp_path: Path) -> None:
    reward = made(micro)
    begun(reward)
    reward.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=told):
        SequenceReward(None, FITTING).load(tmp_path, torch.device("cpu"))


def changed(kept: Path, **settings: Any) -> None:
    config = json.loads((kept / "config.json").read_text())
    (kept / "config.json").write_text(json.dumps(config | settings))


def test_a_model_that_could_not_be_kept_is_refused_before_it_is_fitted(micro: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertConfig, BertLMHeadModel, CohereConfig, CohereForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 260}
    none = CohereForCausalLM(CohereConfig(**sizes, pad_token_id=0, bos_token_id=None, eos_token_id=256))
    other = BertLMHeadModel(BertConfig(**sizes, is_decoder=True))
    for model, told in ((none, "no sequence classifier of the kind 'cohere'.*take another"), (other, "has no linear head 'score'.*take another")):
        model.save_pretrained(tmp_path)
        AutoTokenizer.from_pretrained(micro).save_pretrained(tmp_path)
        with pytest.raises(ConfigError, match=told):
            made(tmp_path, "frozen").fit(PAIRS, learning())


def test_a_world_is_paid_by_it_whatever_the_policy_reads(micro: Path, tmp_path: Path) -> None:
    reward, world = made(micro), load_domain("finance", "SuitabilityDesk").make("train")
    begun(reward)
    save_checkpoint(tmp_path / "checkpoint", reward.save, {})
    other = SequenceReward(str(tmp_path), FITTING)
    other.prepare([])
    paid = RewardedWorld(world, other, [])
    shown, _ = paid.reset(seed=1)
    assert paid.step(3)[1] == other.score([Step(shown, world.acts[3], {}, {})])[0]
