"""Rewards fitted to preferences: what they learn, what they refuse, and their arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from preferred import FITTING, SMALL, learning, preferences, reader, worth

from framework.checkpoint import save_checkpoint
from framework.config import load_domain
from framework.errors import CheckpointError, ConfigError, DataError, TrainingError
from framework.interfaces import Learning
from framework.lm.tfidf import TfidfEncoder
from framework.losses import bradley_terry
from framework.preferences.fitted_reward import Fitting
from framework.preferences.trajectories import score_trajectories, turns_of
from framework.preferences.turn_network import Imitation, Seen, Shape
from framework.preferences.turn_reward import Pairs, TurnReward, preference_losses
from framework.rewards.bradley_terry import BradleyTerry
from framework.rewards.ensemble import Aggregation, Ensemble, combined
from framework.types import Conversation, Message, Preference, Step
from framework.worlds.rewarded import RewardedWorld

PAIRS = preferences(1_500, seed=1)
HELD_OUT = preferences(600, seed=2)
BRIEF = replace(FITTING, epochs=2)


def single(shape: Shape = SMALL, fitting: Fitting = FITTING, path: str | None = None) -> BradleyTerry:
    return BradleyTerry(reader(), path, shape, fitting, 0.0, 1_000)


def ensemble(aggregation: Aggregation = "mean", fitting: Fitting = FITTING, bootstrap: bool = True) -> Ensemble:
    return Ensemble(reader(), None, SMALL, fitting, 0.5, 1_000, 4, aggregation, 1.0, bootstrap)


def agreement(reward: TurnReward) -> float:
    """With the teacher on held-out pairs, less the most that is possible."""
    ahead = score_trajectories(reward, [pair.chosen for pair in HELD_OUT]) - score_trajectories(reward, [pair.rejected for pair in HELD_OUT])
    chances = np.array([pair.probability for pair in HELD_OUT])
    return float(np.mean(np.where(ahead > 0, chances, 1 - chances)) - np.maximum(chances, 1 - chances).mean())


@pytest.mark.slow
@pytest.mark.parametrize("network", ["linear", "mlp"])
def test_preferences_are_recovered(network: Any) -> None:
    reward = single(Shape(network, 16, 0.0))
    reward.fit(PAIRS, learning())
    assert agreement(reward) > -0.03
    seen = [("it rains", "sail"), ("the sun shines\nthere is wind", "sail"), ("the mast is broken", "mend_the_mast"), ("there is wind", "stay")]
    given = reward.score([Step(*turn, {}, {}) for turn in seen])
    assert np.corrcoef(given, [worth(*turn) for turn in seen])[0, 1] > 0.95


@pytest.mark.slow
def test_an_ensemble_recovers_them_too_and_doubts_what_is_strange() -> None:
    reward = ensemble()
    reward.fit(PAIRS, learning())
    assert agreement(reward) > -0.03
    doubts = reward.doubts([Step("it rains", "sail", {}, {}), Step("it rains\n" * 9, "sail", {}, {})])
    for known, strange in doubts.values():
        assert 0 < known < strange
    assert doubts.keys() == {"distance", "disagreement"}


@pytest.mark.parametrize("network", ["linear", "mlp"])
def test_distances_are_mahalanobis_and_kept_with_the_weights(network: Any, tmp_path: Path) -> None:
    reward = single(Shape(network, 16, 0.0), BRIEF)
    reward.fit(PAIRS[:200], learning())
    turns = _turns(PAIRS[:200])
    found = reward.doubts([Step(*turn, {}, {}) for turn in turns])["distance"]
    network_ = reward._fitted()
    with torch.no_grad():
        made = network_.networks.embed(network_.see(network_.numbers(turns)))[0].double().numpy()
    covariance = np.cov(made.T, bias=True)
    covariance += np.eye(16) * 1e-3 * covariance.trace() / 16
    away = made - made.mean(axis=0)
    np.testing.assert_allclose(found, np.einsum("ti,ij,tj->t", away, np.linalg.inv(covariance), away) / 16, rtol=1e-3, atol=1e-4)
    assert 0.2 < found.mean() <= 1

    reward.save(tmp_path)
    again = single(Shape(network, 16, 0.0), BRIEF)
    again.load(tmp_path, torch.device("cpu"))
    np.testing.assert_allclose(again.doubts([Step(*turn, {}, {}) for turn in turns])["distance"], found, rtol=1e-5)
    reward.load(tmp_path, torch.device("cpu"))  # numbers lines anew
    reward.save(tmp_path)
    again.load(tmp_path, torch.device("cpu"))
    np.testing.assert_allclose(again.doubts([Step(*turn, {}, {}) for turn in turns])["distance"], found, rtol=1e-5)


def test_members_are_those_that_would_be_fitted_alone() -> None:
    """The loss of one member does not reach another."""
    reward = ensemble(fitting=BRIEF)
    reward.fit(PAIRS[:80], learning())
    network, numbers = reward._fitted(), reward._pairs(PAIRS[:80], _turns(PAIRS[:80]), learning())
    network.zero_grad()
    lesson = Imitation(4, SMALL.width)
    preference_losses(network, numbers, np.arange(80), 0.1, lesson, 0.5)[2].backward()  # type: ignore[no-untyped-call]
    for parameter in (*network.networks.parameters(), lesson.belongs.weight):
        assert parameter.grad is not None
        assert parameter.grad[2].abs().sum() > 0 and parameter.grad[[0, 1, 3]].abs().sum() == 0
    assert numbers.weights.sum(dim=0).tolist() == [80] * 4 and len({tuple(column) for column in numbers.weights.T.tolist()}) == 4


def _turns(pairs: list[Preference]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(turn for pair in pairs for side in (pair.chosen, pair.rejected) for turn in turns_of(side)))


@pytest.mark.parametrize("network", ["linear", "mlp"])
def test_gradients_are_those_of_finite_differences(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = single(Shape(network, 8, 0.0), BRIEF)
    reward.fit(PAIRS[:64], learning())
    module = reward._fitted().double()
    exact = module.lines.features
    monkeypatch.setattr(module.lines, "features", lambda lines: exact(lines).double())
    found = reward._pairs(PAIRS[:64], _turns(PAIRS[:64]), learning())
    pairs = Pairs(found.turns, found.trajectories, *(part.double() for part in (found.labels * 0.9, found.margins + 0.1, found.weights)))

    def loss() -> torch.Tensor:
        return preference_losses(module, pairs, np.arange(64), 0.05).sum()

    torch.manual_seed(0)
    module.zero_grad()
    loss().backward()  # type: ignore[no-untyped-call]
    for parameter in module.networks.parameters():
        direction, gradient = torch.randn_like(parameter), parameter.grad
        assert gradient is not None
        with torch.no_grad():
            values = []
            for step in (1e-5, -2e-5):
                parameter += step * direction
                values.append(loss().item())
            parameter += 1e-5 * direction
        assert (gradient * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-8)


def test_the_loss_by_hand() -> None:
    """Soft labels are a cross-entropy, a trajectory is the sum of its turns, a turn in both cancels out."""
    turns = [np.array([number]) for number in range(3)]
    trajectories = [(np.array([0, 1]), np.array([0, 2])), (np.array([2]), np.array([1, 1]))]
    scores = torch.tensor([[5.0], [1.0], [-0.5]])
    pairs = Pairs(turns, trajectories, torch.tensor([1.0, 0.25]), torch.tensor([0.0, 0.5]), torch.tensor([[1.0], [3.0]]))
    network: Any = Mock(side_effect=lambda seen: scores[seen])
    network.see = np.concatenate
    found = preference_losses(network, pairs, np.arange(2), 0.1)
    first = np.log1p(np.exp(-1.5)) + 0.1 * 10.5**2
    ahead = -0.5 - 2.0 - 0.5
    second = 0.25 * np.log1p(np.exp(-ahead)) + 0.75 * np.log1p(np.exp(ahead)) + 0.1 * 1.5**2
    assert found.tolist() == [pytest.approx((first + 3 * second) / 4)]


def test_the_lesson_by_hand() -> None:
    """Which act belongs to what was observed: asked of every turn of the chosen sides, as often as a member has drawn their pair."""
    torch.manual_seed(0)
    lesson = Imitation(1, 3).double()
    seen = Seen(torch.randn(1, 3, 3).double(), torch.randn(1, 2, 3).double(), torch.tensor([0, 1, 1]))
    told = seen.observed[0] @ lesson.belongs.weight[0] + lesson.belongs.bias[0]
    chances = torch.softmax(told @ seen.acts[0].T / 3**0.5, dim=1)
    wrong = [-chances[turn, act].log().item() for turn, act in enumerate([0, 1, 1])]

    network: Any = Mock(return_value=torch.zeros(3, 1).double())
    network.see = Mock(return_value=seen)
    trajectories = [(np.array([0, 1]), np.array([2])), (np.array([1]), np.array([0, 2]))]
    pairs = Pairs([np.array([number]) for number in range(3)], trajectories, torch.ones(2).double(), torch.zeros(2).double(), torch.tensor([[1.0], [2.0]]))
    asked = preference_losses(network, pairs, np.arange(2), 0.0, lesson, 0.5) - preference_losses(network, pairs, np.arange(2), 0.0)
    assert asked.item() == pytest.approx(0.5 * (wrong[0] + 3 * wrong[1]) / 4)


@pytest.mark.parametrize("margin", [None, torch.tensor([0.5, 0.0, 2.0])])
def test_the_loss_is_that_of_trl(margin: torch.Tensor | None) -> None:
    trl = pytest.importorskip("trl")
    scores = torch.randn(6, 1, generator=torch.Generator().manual_seed(3))
    gathering = SimpleNamespace(gather=lambda value: value, gather_for_metrics=lambda value: value)
    names = ("num_tokens", "min_reward", "mean_reward", "max_reward", "accuracy", "margin")
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False), args=SimpleNamespace(center_rewards_coefficient=0.02), accelerator=gathering, _total_train_tokens=0, _tp_size=1
    )
    trainer._metrics = {"eval": {name: [] for name in names}}
    inputs = {"attention_mask": torch.ones(6, 2), **({} if margin is None else {"margin": margin})}
    theirs = trl.RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=scores), inputs)
    assert bradley_terry(*scores.squeeze(1).chunk(2), margin, 0.02).mean().item() == pytest.approx(theirs.item(), rel=1e-6)


def test_aggregations_by_hand() -> None:
    scores = np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])  # mean 3, variance 14/3
    assert combined(scores, "mean", 9.0).tolist() == [3.0, 0.0]
    assert combined(scores, "worst", 9.0).tolist() == [1.0, 0.0]
    assert combined(scores, "uncertainty_weighted", 0.5).tolist() == pytest.approx([3 - 7 / 3, 0.0])
    assert combined(scores, "lower_confidence_bound", 0.5).tolist() == pytest.approx([3 - (14 / 3) ** 0.5 / 2, 0.0])


@pytest.mark.parametrize("make", [single, ensemble])
def test_saved_and_loaded_it_scores_alike(make: Any, tmp_path: Path) -> None:
    reward, turns = make(fitting=BRIEF), [Step("it rains\nthere is wind", "sail", {}, {}), Step("", "", {}, {}), Step("it snows", "stay", {}, {})]
    reward.fit(PAIRS[:200], learning())
    save_checkpoint(tmp_path / "run" / "checkpoint", reward.save, {})
    other = make(fitting=BRIEF)
    other.path = str(tmp_path / "run")
    other.prepare(["anything"])
    assert other.score(turns).tolist() == reward.score(turns).tolist()
    assert other.score(turns[::-1]).tolist() == reward.score(turns).tolist()[::-1]
    assert np.isfinite(other.score(turns)).all() and other.score([]).shape == (0,)


def test_fits_are_repeatable_and_seeds_differ() -> None:
    turns, scores = [Step("it rains", "sail", {}, {})], []
    for seed in (0, 0, 1):
        reward = single(fitting=BRIEF)
        torch.rand(1)
        reward.fit(PAIRS[:200], learning(seed))
        scores.append(float(reward.score(turns)[0]))
    assert scores[0] == scores[1] != scores[2]


def test_a_fit_ends_when_it_is_told_to_and_is_scored_as_it_is_then() -> None:
    reward, turn, seen = single(), [Step("it rains", "sail", {}, {})], list[float]()

    def progress(steps: int, metrics: Any) -> bool:
        seen.append(float(reward.score(turn)[0]))
        return steps < 3

    reward.fit(PAIRS[:200], Learning(progress, 0, torch.device("cpu")))
    assert len(seen) == len(set(seen)) == 3 and reward.score(turn)[0] == seen[-1]


def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reward.path: must be given"):
        single().prepare([])
    with pytest.raises(ConfigError, match="not fitted"):
        single().score([Step("a", "b", {}, {})])
    with pytest.raises(CheckpointError, match="no checkpoint.json"):
        single(path=str(tmp_path)).prepare([])
    with pytest.raises(DataError, match="there are none"):
        single().fit([], learning())
    with pytest.raises(ValueError, match="reader: str is no reader of lines"):
        BradleyTerry("minilm", None, SMALL, FITTING, 0.0, 10)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="learning_rate"):
        single(fitting=replace(FITTING, learning_rate=1e30)).fit(PAIRS, learning())


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (BradleyTerry(TfidfEncoder(25), None, SMALL, BRIEF, 0.0, 10), "reader.max_features is 24 there and 25 here"),
        (BradleyTerry(reader(), None, Shape("linear", 16, 0.0), BRIEF, 0.0, 10), "shape.network is 'mlp' there and 'linear' here"),
        (ensemble(), "members is 1 there and 4 here"),
    ],
)
def test_a_reward_of_another_configuration_is_refused_by_name(other: TurnReward, told: str, tmp_path: Path) -> None:
    reward = single(fitting=BRIEF)
    reward.fit(PAIRS[:100], learning())
    reward.save(tmp_path)
    with pytest.raises(CheckpointError, match=told):
        other.load(tmp_path, torch.device("cpu"))
    (tmp_path / "reward.safetensors").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="holds no fitted reward"):
        reward.load(tmp_path, torch.device("cpu"))


def test_turns_of_a_conversation() -> None:
    said = [Message("system", "be brief"), Message("user", "a\nb"), Message("assistant", "x"), Message("user", "c"), Message("assistant", "y")]
    assert turns_of(Conversation(said)) == [("be brief\na\nb", "x"), ("c", "y")]
    assert turns_of(Conversation(said[1:3])) == [("a\nb", "x")]


def test_a_world_is_paid_by_it() -> None:
    reward, world = single(fitting=BRIEF), load_domain("finance", "SuitabilityDesk").make("train")
    reward.fit(PAIRS[:100], learning())
    paid = RewardedWorld(world, reward, [])
    shown, _ = paid.reset(seed=1)
    assert paid.step(3)[1] == reward.score([Step(shown, world.acts[3], {}, {})])[0]


@pytest.mark.parametrize("acts", ["names", "words"])
def test_it_is_asked_about_acts_as_they_stand_in_the_pairs_that_it_was_fitted_to(acts: str, tmp_path: Path) -> None:
    def told(side: Conversation) -> Conversation:
        return replace(side, fields={**side.fields, "acts": acts})

    reward = single(fitting=BRIEF)
    reward.fit([replace(pair, chosen=told(pair.chosen), rejected=told(pair.rejected)) for pair in PAIRS[:200]], learning())
    reward.save(tmp_path)
    again = single()
    again.load(tmp_path, torch.device("cpu"))
    mumbled, named, spoken = Step("it rains", "", {}, {}, said="sail"), Step("it rains", "stay", {}, {}), Step("it rains", "stay", {}, {}, said="sail")
    for each in (reward, again):
        sail, stay = each.member_scores([("it rains", "sail"), ("it rains", "stay")])[:, 0]
        assert each.score([named, spoken]).tolist() == [stay, sail if acts == "words" else stay]
        each.expect([mumbled])
        assert bool(each.score([mumbled])[0] == sail) is (acts == "words")
